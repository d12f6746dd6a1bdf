"""What a check found, as the page lists it: one line for each thing that was looked at."""

from __future__ import annotations

import re
from dataclasses import dataclass

from composer.inspection import AdapterSummary
from marketplace.catalogue.models import Adapter
from marketplace.uploads.models import Upload

_LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class Finding:
    """One thing that was checked and what was seen."""

    subject: str
    text: str


def list_findings(upload: Upload) -> list[Finding]:
    """Return what was found in files that were accepted; nothing for others."""
    summary = upload.adapter_summary
    if summary is None or upload.base_model is None:
        return []
    return [
        Finding("File format", _describe_format(upload, summary)),
        Finding("Base model", f"{upload.base_model.name}, known here"),
        Finding("Target modules", _describe_targets(summary)),
        Finding("Shapes", f"all {summary.tensor_count} agree with the base"),
        Finding("Rank and alpha", _describe_rank(summary)),
        Finding("Values", _describe_values(summary)),
        Finding("Composable with", _describe_company(upload, summary)),
    ]


def _describe_format(upload: Upload, summary: AdapterSummary) -> str:
    names = {file.path for file in upload.files.all()}
    text = f"safetensors, {summary.tensor_count} tensors"
    if "adapter_model.safetensors" in names:
        return f"{text}, no pickle"
    return f"{text}, converted from the .bin without running it"


def _describe_targets(summary: AdapterSummary) -> str:
    layers = {match[1] for path in summary.modules if (match := _LAYER.search(path))}
    targets = ", ".join(summary.target_modules)
    return f"{targets} in {len(layers)} layers" if layers else targets


def _describe_rank(summary: AdapterSummary) -> str:
    ranks = sorted(set(summary.modules.values()))
    rank = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
    alpha = "several alphas" if summary.alpha_pattern else f"{summary.alpha:g}"
    return f"{rank} and {alpha}, the same in file and config"


def _describe_values(summary: AdapterSummary) -> str:
    idle = len(summary.zero_modules)
    if idle == 0:
        return "finite; no tensor is all zero"
    modules = "module changes" if idle == 1 else "modules change"
    return f"finite; {idle} {modules} nothing, because a tensor is all zero"


def _describe_company(upload: Upload, summary: AdapterSummary) -> str:
    shelf = Adapter.objects.visible_to(upload.owner).filter(
        base_model=upload.base_model, latest__isnull=False
    )
    key = ", ".join(sorted(summary.target_modules))[:300]
    alike = shelf.filter(rank=summary.rank, targets_key=key).count()
    count = shelf.count()
    if count == 0:
        return "nothing yet: it is the first one for this base"
    noun = "adapter" if count == 1 else "adapters"
    return f"{count} {noun} by concat or svd, {alike} of the same rank and targets by factor"
