"""Plugins of Pillow for the formats that it lacks; each is imported when its codec is first used."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version as package_version
from os import cpu_count
from typing import Any

__all__ = ["HeifPlugin", "Plugin"]


@dataclass(frozen=True)
class Plugin:
    """A plugin that makes itself known to Pillow when it is imported.

    module: its name; package: what installs it; options: the module whose DECODE_THREADS says how many threads decode.
    """

    module: str
    package: str
    options: str

    def problem(self) -> str | None:
        """Why it cannot be used, None if it can; Pillow knows it from then on."""
        try:
            import_module(self.module)
        except ImportError as e:
            return f"its plugin cannot be imported ({e})"
        return None

    def version(self) -> str:
        """Of the package; "None" where it cannot be used."""
        return "None" if self.problem() else package_version(self.package)

    def limit_threads(self, threads: int) -> None:
        """Decode with so many threads, 0 for as many as there are processors."""
        options: Any = import_module(self.options)
        options.DECODE_THREADS = threads or cpu_count()


@dataclass(frozen=True)
class HeifPlugin(Plugin):
    """pillow-heif: it has to be registered, and may have been built without an encoder."""

    def problem(self) -> str | None:
        problem = super().problem()
        if problem is not None:
            return problem
        plugin: Any = import_module(self.module)
        plugin.register_heif_opener()
        return None if plugin.libheif_info()["HEIF"] else f"this {self.package} has no encoder of HEVC"

    def version(self) -> str:
        """Of libheif and of its encoder."""
        if Plugin.problem(self):
            return "None"
        plugin: Any = import_module(self.module)
        info: dict[str, Any] = plugin.libheif_info()
        return f"libheif {info['libheif']}, {info['HEIF'] or 'no encoder'}"
