"""Names the app for Django, and says who may listen to its jobs."""

from __future__ import annotations

from django.apps import AppConfig


class CompositionsConfig(AppConfig):
    """The compositions app."""

    name = "marketplace.compositions"
    label = "compositions"

    def ready(self) -> None:
        """Register the channel of jobs; models can be imported only now."""
        from marketplace.compositions.channels import PREFIX, may_hear  # noqa: PLC0415
        from marketplace.live.channels import register  # noqa: PLC0415

        register(PREFIX, may_hear)
