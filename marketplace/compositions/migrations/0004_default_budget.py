import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("compositions", "0003_gradients_and_memory"),
    ]

    operations = [
        migrations.AlterField(
            model_name="compositionjob",
            name="budget",
            field=models.PositiveIntegerField(
                default=52,
                validators=[
                    django.core.validators.MinValueValidator(1),
                    django.core.validators.MaxValueValidator(500),
                ],
            ),
        ),
    ]
