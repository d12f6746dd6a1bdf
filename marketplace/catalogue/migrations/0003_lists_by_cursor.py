"""The index by gain takes an adapter without a gain for the last, so that pages go on by rows."""

import django.db.models.functions.comparison
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("catalogue", "0002_gating_and_aliases"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name="adapter",
            name="adapter_best_gain",
        ),
        migrations.AddIndex(
            model_name="adapter",
            index=models.Index(
                models.OrderBy(
                    django.db.models.functions.comparison.Coalesce(
                        "gain", models.Value(-1e30, models.FloatField())
                    ),
                    descending=True,
                ),
                models.OrderBy(models.F("id"), descending=True),
                name="adapter_best_gain",
            ),
        ),
    ]
