"""One way to decode: a realism, and how the reverse path is driven."""

from __future__ import annotations

from dataclasses import dataclass, replace

from unquant.networks.reverse import ReverseConfig

__all__ = ["COLUMNS", "DRIVE", "Setting"]

DRIVE = ("sampler", "steps", "schedule_power", "alpha_first", "alpha_last", "tau", "project")
"""The fields of `ReverseConfig` that may change without training."""
COLUMNS = ("ρ", "steps", "power", "sampler", "α", "τ", "projected")
"""Headings of what a table says of a setting."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to decode: realism ρ in [0, 1], and how the reverse path is driven. reverse: None to leave the path out."""

    realism: float
    reverse: ReverseConfig | None

    def essence(self) -> Setting:
        """The setting with every option that has no effect beside the others at one fixed value.

        Settings of one essence decode to the same picture, bit for bit.
        """
        c = self.reverse
        if c is None or (self.realism <= 0 and not c.joint):
            return Setting(self.realism, None)
        if c.steps == 1:
            c = replace(c, schedule_power=1.0, alpha_last=c.alpha_first)
        if c.sampler == "deterministic" or c.alpha_first == c.alpha_last == 0:
            sampler = "bridge" if c.sampler == "bridge" else "deterministic"
            c = replace(c, sampler=sampler, alpha_first=0.0, alpha_last=0.0, tau="constant")
        return Setting(self.realism, c)

    def columns(self) -> dict[str, str]:
        """What a table says of the setting, by heading; a dash for options that have no effect."""
        c = self.essence().reverse
        if c is None:
            return {**dict.fromkeys(COLUMNS, "–"), "ρ": f"{self.realism:g}"}
        noisy = c.alpha_first > 0 or c.alpha_last > 0
        ends = [f"{c.alpha_first:g}", f"{c.alpha_last:g}"][: c.steps]
        texts = (
            f"{self.realism:g}",
            str(c.steps),
            f"{c.schedule_power:g}" if c.steps > 1 else "–",
            c.sampler,
            "–" if c.sampler == "deterministic" else "..".join(ends),
            c.tau if noisy else "–",
            "yes" if c.project else "no",
        )
        return dict(zip(COLUMNS, texts, strict=True))
