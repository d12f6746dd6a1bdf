"""Pages of the catalogue, by subject: the list, one adapter, its owner's forms, the tray, files."""

from __future__ import annotations
