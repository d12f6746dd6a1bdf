"""What the new columns say of adapters that are there already."""

from __future__ import annotations

from typing import Any

from django.db import migrations

from composer.compatibility import shape_key
from composer.inspection import AdapterSummary

BATCH = 1_000
# As `services.counting` tells it at every download from now on; likes join in with the next one.
TRENDS = """
SET LOCAL statement_timeout = 0;
UPDATE catalogue_adapter SET trending =
    ln(total) / ln(2.0::float8) + (current_date - DATE '2020-01-01') / 7.0::float8
FROM (
    SELECT adapter_id, sum(count * power(2.0::float8, (day - current_date) / 7.0::float8)) AS total
    FROM catalogue_downloadcount WHERE day > current_date - 90 AND count > 0 GROUP BY adapter_id
) AS sums WHERE sums.adapter_id = catalogue_adapter.id;
"""


def fill_fits(apps: Any, schema_editor: Any) -> None:
    """Copy task and shape out of each current revision's summary."""
    adapters = apps.get_model("catalogue", "Adapter").objects
    rows = adapters.filter(latest__summary_json__isnull=False).select_related("latest")
    batch = []
    for adapter in rows.only("pk", "latest__summary_json").iterator(BATCH):
        summary = AdapterSummary.from_dict(adapter.latest.summary_json)
        adapter.peft_task, adapter.shape_key = summary.task_type or "", shape_key(summary)
        batch.append(adapter)
        if len(batch) == BATCH:
            adapters.bulk_update(batch, ["peft_task", "shape_key"])
            batch.clear()
    adapters.bulk_update(batch, ["peft_task", "shape_key"])


class Migration(migrations.Migration):
    """Data only."""

    dependencies = [("catalogue", "0004_trends_and_fits")]

    operations = [
        migrations.RunSQL(TRENDS, migrations.RunSQL.noop),
        migrations.RunPython(fill_fits, migrations.RunPython.noop),
    ]
