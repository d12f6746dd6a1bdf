"""The tables of the shelf, and the search documents that triggers keep beside each adapter."""

import django.contrib.postgres.indexes
import django.contrib.postgres.search
import django.core.validators
import django.db.models.deletion
import django.db.models.expressions
import django.db.models.functions.text
from django.conf import settings
from django.contrib.postgres.operations import TrigramExtension, UnaccentExtension
from django.db import migrations, models

import marketplace.accounts.names

# Names are taken apart first: the parser would read "demo/pick_animal" as the path of a file.
# What enters the document is cut, since a tsvector holds 1 MB at most.
SEARCH_SQL = """
CREATE TEXT SEARCH CONFIGURATION catalogue (COPY = english);
ALTER TEXT SEARCH CONFIGURATION catalogue
    ALTER MAPPING FOR asciihword, asciiword, hword, hword_asciipart, hword_part, word
    WITH unaccent, english_stem;

CREATE FUNCTION catalogue_fill_search() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    words text := regexp_replace(NEW.full_name || ' ' || NEW.task, '[^[:alnum:]]+', ' ', 'g');
    tags text := coalesce((
        SELECT string_agg(tag.name, ' ' ORDER BY tag.name)
        FROM catalogue_adapter_tags AS link JOIN catalogue_tag AS tag ON tag.id = link.tag_id
        WHERE link.adapter_id = NEW.id
    ), '');
    samples text := coalesce((
        SELECT string_agg(input || ' ' || output, ' ' ORDER BY position)
        FROM catalogue_sample WHERE adapter_id = NEW.id
    ), '');
BEGIN
    NEW.search :=
        setweight(to_tsvector('catalogue', words), 'A')
        || setweight(to_tsvector('catalogue', tags || ' ' || NEW.summary), 'B')
        || setweight(to_tsvector('catalogue', left(samples, 40000)), 'C')
        || setweight(to_tsvector('catalogue', left(NEW.card, 60000)), 'D');
    NEW.search_text := lower(unaccent(words || ' ' || tags || ' ' || NEW.summary));
    RETURN NEW;
END $$;

CREATE TRIGGER adapter_fill_search
    BEFORE INSERT OR UPDATE OF full_name, task, summary, card ON catalogue_adapter
    FOR EACH ROW EXECUTE FUNCTION catalogue_fill_search();

CREATE FUNCTION catalogue_refresh_search() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE catalogue_adapter SET summary = summary
    WHERE id IN (SELECT adapter_id FROM changed);
    RETURN NULL;
END $$;

CREATE TRIGGER tag_added AFTER INSERT ON catalogue_adapter_tags
    REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION catalogue_refresh_search();
CREATE TRIGGER tag_removed AFTER DELETE ON catalogue_adapter_tags
    REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION catalogue_refresh_search();
CREATE TRIGGER sample_added AFTER INSERT ON catalogue_sample
    REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION catalogue_refresh_search();
CREATE TRIGGER sample_changed AFTER UPDATE ON catalogue_sample
    REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION catalogue_refresh_search();
CREATE TRIGGER sample_removed AFTER DELETE ON catalogue_sample
    REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION catalogue_refresh_search();
"""

FORGET_SEARCH_SQL = """
DROP TRIGGER sample_removed ON catalogue_sample;
DROP TRIGGER sample_changed ON catalogue_sample;
DROP TRIGGER sample_added ON catalogue_sample;
DROP TRIGGER tag_removed ON catalogue_adapter_tags;
DROP TRIGGER tag_added ON catalogue_adapter_tags;
DROP TRIGGER adapter_fill_search ON catalogue_adapter;
DROP FUNCTION catalogue_refresh_search();
DROP FUNCTION catalogue_fill_search();
DROP TEXT SEARCH CONFIGURATION catalogue;
"""


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("blobs", "0001_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        TrigramExtension(),
        UnaccentExtension(),
        migrations.CreateModel(
            name="BaseModel",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "name",
                    models.CharField(
                        help_text="The hub id that adapter_config.json names.",
                        max_length=200,
                        unique=True,
                    ),
                ),
                (
                    "aliases",
                    models.JSONField(
                        blank=True,
                        default=list,
                        help_text="Other names under which adapters may refer to it.",
                    ),
                ),
                (
                    "source_kind",
                    models.CharField(
                        choices=[
                            ("hub", "hub repository"),
                            ("folder", "local folder"),
                            ("gguf_package", "GGUF inside an installed Python package"),
                        ],
                        max_length=16,
                    ),
                ),
                (
                    "location",
                    models.CharField(help_text="Hub id, folder or Python package.", max_length=300),
                ),
                ("revision", models.CharField(blank=True, max_length=64)),
                (
                    "file",
                    models.CharField(
                        blank=True, help_text="The GGUF inside the package.", max_length=300
                    ),
                ),
                ("licence", models.CharField(blank=True, max_length=60)),
                (
                    "prompt_format",
                    models.CharField(
                        choices=[
                            ("plain", "plain: input, a space, output"),
                            ("chat", "chat: the tokenizer's template"),
                        ],
                        default="plain",
                        max_length=8,
                    ),
                ),
                ("architecture", models.CharField(blank=True, editable=False, max_length=100)),
                ("is_seq2seq", models.BooleanField(default=False, editable=False)),
                ("parameter_count", models.BigIntegerField(blank=True, editable=False, null=True)),
                ("module_table", models.JSONField(blank=True, default=dict, editable=False)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("pending", "waiting for its module table"),
                            ("ready", "ready"),
                            ("failed", "failed"),
                        ],
                        default="pending",
                        editable=False,
                        max_length=8,
                    ),
                ),
                ("error", models.TextField(blank=True, editable=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
            options={
                "ordering": ["name"],
            },
        ),
        migrations.CreateModel(
            name="Tag",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "name",
                    models.CharField(
                        max_length=40,
                        unique=True,
                        validators=[
                            django.core.validators.RegexValidator(
                                "\\A[a-z0-9][a-z0-9._+-]*\\Z",
                                "A tag holds lower-case letters, digits, “.”, “_”, “+” and “-”.",
                            )
                        ],
                    ),
                ),
            ],
            options={
                "ordering": ["name"],
            },
        ),
        migrations.CreateModel(
            name="Adapter",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "name",
                    models.CharField(
                        max_length=96, validators=[marketplace.accounts.names.validate_adapter_name]
                    ),
                ),
                ("full_name", models.CharField(editable=False, max_length=193)),
                (
                    "visibility",
                    models.CharField(
                        choices=[("public", "public"), ("private", "private")],
                        default="public",
                        max_length=8,
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[("trained", "trained"), ("composed", "composed")],
                        default="trained",
                        max_length=8,
                    ),
                ),
                ("summary", models.CharField(blank=True, max_length=200)),
                (
                    "card",
                    models.TextField(
                        blank=True, validators=[django.core.validators.MaxLengthValidator(524288)]
                    ),
                ),
                (
                    "licence",
                    models.CharField(blank=True, help_text="SPDX expression", max_length=200),
                ),
                ("task", models.CharField(blank=True, max_length=60)),
                ("language", models.CharField(blank=True, max_length=20)),
                (
                    "prompt_format",
                    models.CharField(
                        choices=[
                            ("plain", "plain: input, a space, output"),
                            ("chat", "chat: the tokenizer's template"),
                        ],
                        default="plain",
                        max_length=8,
                    ),
                ),
                ("training_data", models.CharField(blank=True, max_length=300)),
                (
                    "base_loss",
                    models.FloatField(
                        blank=True, help_text="Mean loss of the base alone", null=True
                    ),
                ),
                (
                    "adapter_loss",
                    models.FloatField(
                        blank=True, help_text="Mean loss with the adapter", null=True
                    ),
                ),
                (
                    "gain",
                    models.GeneratedField(
                        db_persist=True,
                        expression=django.db.models.expressions.CombinedExpression(
                            models.F("base_loss"), "-", models.F("adapter_loss")
                        ),
                        output_field=models.FloatField(null=True),
                    ),
                ),
                ("rank", models.PositiveIntegerField(blank=True, editable=False, null=True)),
                ("targets_key", models.CharField(blank=True, editable=False, max_length=300)),
                ("weights_size", models.BigIntegerField(blank=True, editable=False, null=True)),
                ("likes", models.PositiveIntegerField(default=0, editable=False)),
                ("downloads", models.PositiveBigIntegerField(default=0, editable=False)),
                (
                    "search",
                    django.contrib.postgres.search.SearchVectorField(editable=False, null=True),
                ),
                (
                    "search_text",
                    models.TextField(blank=True, editable=False, help_text="For trigrams."),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "deleted_at",
                    models.DateTimeField(
                        blank=True,
                        editable=False,
                        help_text="The row stays: its name is never given away, its children keep their lineage.",
                        null=True,
                    ),
                ),
                (
                    "owner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="adapters",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "base_model",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="adapters",
                        to="catalogue.basemodel",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Revision",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "oid",
                    models.CharField(
                        max_length=40,
                        validators=[django.core.validators.RegexValidator("\\A[0-9a-f]{40}\\Z")],
                    ),
                ),
                (
                    "number",
                    models.PositiveIntegerField(
                        blank=True, help_text="v1, v2, … on main", null=True
                    ),
                ),
                ("title", models.CharField(max_length=200)),
                ("message", models.TextField(blank=True)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("draft", "draft"),
                            ("accepted", "accepted"),
                            ("refused", "refused"),
                        ],
                        default="draft",
                        max_length=8,
                    ),
                ),
                ("problems", models.JSONField(blank=True, default=list)),
                (
                    "origin",
                    models.CharField(
                        choices=[
                            ("upload", "uploaded in the browser or by API"),
                            ("hub", "pushed by a hub client"),
                            ("import", "imported from a hub"),
                            ("composition", "composed here"),
                        ],
                        max_length=12,
                    ),
                ),
                ("provenance", models.JSONField(blank=True, default=dict)),
                ("summary_json", models.JSONField(blank=True, null=True)),
                ("rank", models.PositiveIntegerField(blank=True, null=True)),
                ("alpha", models.FloatField(blank=True, null=True)),
                ("target_modules", models.JSONField(blank=True, default=list)),
                (
                    "targets_key",
                    models.CharField(blank=True, help_text="q_proj, v_proj", max_length=300),
                ),
                ("dtype", models.CharField(blank=True, max_length=8)),
                ("parameter_count", models.BigIntegerField(blank=True, null=True)),
                ("weights_size", models.BigIntegerField(blank=True, null=True)),
                ("weights_sha256", models.CharField(blank=True, db_index=True, max_length=64)),
                (
                    "job_key",
                    models.UUIDField(
                        blank=True,
                        help_text="One revision for each published job.",
                        null=True,
                        unique=True,
                    ),
                ),
                ("yanked_at", models.DateTimeField(blank=True, null=True)),
                ("yank_reason", models.CharField(blank=True, max_length=300)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "adapter",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="revisions",
                        to="catalogue.adapter",
                    ),
                ),
                (
                    "author",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="revisions",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "base_model",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="revisions",
                        to="catalogue.basemodel",
                    ),
                ),
                (
                    "parent",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="catalogue.revision",
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="Ref",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[("branch", "branch"), ("tag", "tag")],
                        default="branch",
                        max_length=6,
                    ),
                ),
                ("name", models.CharField(max_length=120)),
                ("message", models.CharField(blank=True, max_length=300)),
                (
                    "adapter",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="refs",
                        to="catalogue.adapter",
                    ),
                ),
                (
                    "revision",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="refs",
                        to="catalogue.revision",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Lineage",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("position", models.PositiveSmallIntegerField()),
                ("weight", models.FloatField(help_text="Signed weight that the search found")),
                (
                    "child",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="parents",
                        to="catalogue.revision",
                    ),
                ),
                (
                    "parent",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="children",
                        to="catalogue.revision",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "lineage",
                "ordering": ["position"],
            },
        ),
        migrations.AddField(
            model_name="adapter",
            name="latest",
            field=models.ForeignKey(
                blank=True,
                editable=False,
                help_text="Newest accepted revision of main that is not yanked.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="catalogue.revision",
            ),
        ),
        migrations.CreateModel(
            name="RevisionFile",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("path", models.CharField(max_length=500)),
                (
                    "blob",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="uses",
                        to="blobs.blob",
                    ),
                ),
                (
                    "revision",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="files",
                        to="catalogue.revision",
                    ),
                ),
            ],
            options={
                "ordering": ["path"],
            },
        ),
        migrations.CreateModel(
            name="Sample",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("position", models.PositiveSmallIntegerField()),
                ("input", models.TextField(max_length=8192)),
                ("output", models.TextField(max_length=8192)),
                (
                    "adapter",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="samples",
                        to="catalogue.adapter",
                    ),
                ),
            ],
            options={
                "ordering": ["position"],
            },
        ),
        migrations.AddField(
            model_name="adapter",
            name="tags",
            field=models.ManyToManyField(blank=True, related_name="adapters", to="catalogue.tag"),
        ),
        migrations.CreateModel(
            name="DownloadCount",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("day", models.DateField()),
                ("count", models.PositiveIntegerField(default=0)),
                (
                    "adapter",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="download_days",
                        to="catalogue.adapter",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("adapter", "day"), name="download_day_unique")
                ],
            },
        ),
        migrations.CreateModel(
            name="Like",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "adapter",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="liked_by",
                        to="catalogue.adapter",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="likes",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("user", "adapter"), name="like_once")
                ],
            },
        ),
        migrations.AddConstraint(
            model_name="revision",
            constraint=models.UniqueConstraint(
                fields=("adapter", "oid"), name="revision_oid_unique"
            ),
        ),
        migrations.AddConstraint(
            model_name="revision",
            constraint=models.UniqueConstraint(
                fields=("adapter", "number"), name="revision_number_unique"
            ),
        ),
        migrations.AddConstraint(
            model_name="ref",
            constraint=models.UniqueConstraint(fields=("adapter", "name"), name="ref_name_unique"),
        ),
        migrations.AddConstraint(
            model_name="lineage",
            constraint=models.UniqueConstraint(
                fields=("child", "parent"), name="lineage_edge_unique"
            ),
        ),
        migrations.AddConstraint(
            model_name="revisionfile",
            constraint=models.UniqueConstraint(
                fields=("revision", "path"), name="file_path_unique"
            ),
        ),
        migrations.AddConstraint(
            model_name="sample",
            constraint=models.UniqueConstraint(
                fields=("adapter", "position"), name="sample_position_unique"
            ),
        ),
        migrations.AddIndex(
            model_name="adapter",
            index=django.contrib.postgres.indexes.GinIndex(
                fields=["search"], name="adapter_search"
            ),
        ),
        migrations.AddIndex(
            model_name="adapter",
            index=django.contrib.postgres.indexes.GinIndex(
                django.contrib.postgres.indexes.OpClass("search_text", name="gin_trgm_ops"),
                name="adapter_trigrams",
            ),
        ),
        migrations.AddIndex(
            model_name="adapter",
            index=models.Index(fields=["-downloads", "-id"], name="adapter_most_used"),
        ),
        migrations.AddIndex(
            model_name="adapter",
            index=models.Index(fields=["-updated_at", "-id"], name="adapter_newest"),
        ),
        migrations.AddIndex(
            model_name="adapter",
            index=models.Index(fields=["-likes", "-id"], name="adapter_most_liked"),
        ),
        migrations.AddIndex(
            model_name="adapter",
            index=models.Index(
                models.OrderBy(models.F("gain"), descending=True, nulls_last=True),
                models.OrderBy(models.F("id"), descending=True),
                name="adapter_best_gain",
            ),
        ),
        migrations.AddConstraint(
            model_name="adapter",
            constraint=models.UniqueConstraint(
                models.F("owner"),
                django.db.models.functions.text.Lower("name"),
                name="adapter_name_unique_per_owner",
            ),
        ),
        migrations.RunSQL(SEARCH_SQL, FORGET_SEARCH_SQL),
    ]
