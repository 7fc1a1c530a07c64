"""Commands that take a config, and with it overrides of its settings."""

from __future__ import annotations

import click

from dens_ocp.settings.overrides import check


class ConfigCommand(click.Command):
    """A command that takes ``--section.option=value`` anywhere, as fairchem main does.

    The function gets them as ``overrides``, a list of words as they were given.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Raises: DensError: an override without ``=``."""
        known = {
            name for each in self.get_params(ctx) for name in (*each.opts, *each.secondary_opts)
        }
        overrides = [
            word for word in args if word.startswith("--") and word.partition("=")[0] not in known
        ]
        rest = super().parse_args(ctx, [word for word in args if word not in overrides])
        ctx.params["overrides"] = overrides
        check(overrides)
        return rest
