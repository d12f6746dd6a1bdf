"""Names the app for Django, and says who may listen to its jobs."""

from __future__ import annotations

from django.apps import AppConfig


class UploadsConfig(AppConfig):
    """The uploads app."""

    name = "marketplace.uploads"
    label = "uploads"

    def ready(self) -> None:
        """Register the channels of imports and exports; models can be imported only now."""
        from marketplace.live.channels import register  # noqa: PLC0415
        from marketplace.uploads.channels import may_hear_export, may_hear_import  # noqa: PLC0415

        register("import", may_hear_import)
        register("export", may_hear_export)
