"""Directives that write tables of options from the code: ``options`` of a section of a config
(``dens-ocp options SECTION``), ``fairchem-arguments`` of the command line of ``fairchem main``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from dens_ocp.settings.command_line import fairchem_parser
from dens_ocp.tools import options


class _Table(SphinxDirective):
    """A table of which the cells are inline text."""

    def table(self, head: tuple[str, ...], widths: tuple[int, ...], rows: Iterable[tuple]) -> list:
        group = nodes.tgroup(cols=len(head))
        group += [nodes.colspec(colwidth=width) for width in widths]
        group += nodes.thead("", self._row([nodes.paragraph(text=each) for each in head]))
        body = nodes.tbody()
        for *code, meaning in rows:
            cells = [nodes.literal(text=each) if each else nodes.Text("") for each in code]
            text = nodes.paragraph()
            self.state.nested_parse(StringList([meaning], "options"), 0, text)
            body += self._row([nodes.paragraph("", "", each) for each in cells] + text.children[:1])
        group += body
        return [nodes.table("", group, classes=["colwidths-given"])]

    @staticmethod
    def _row(cells: list[nodes.Node]) -> nodes.row:
        return nodes.row("", *(nodes.entry("", each) for each in cells))


class Options(_Table):
    """``{options} SECTION``; ``:only:`` and ``:without:`` take names of options."""

    required_arguments = 1
    option_spec = {"only": directives.unchanged, "without": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        only, without = (self.options.get(name, "").split() for name in ("only", "without"))
        known = options.of(self.arguments[0])
        names = [each.name for each in known]
        if unknown := [each for each in (*only, *without) if each not in names]:
            raise self.error(f"{self.arguments[0]} has no option {', '.join(unknown)}")
        return self.table(
            ("option", "default", "meaning"),
            (25, 15, 60),
            [
                (each.name, each.default, each.meaning)
                for each in known
                if each.name not in without and (not only or each.name in only)
            ],
        )


class FairchemArguments(_Table):
    """``{fairchem-arguments}``: the arguments of ``fairchem main``."""

    def run(self) -> list[nodes.Node]:
        rows = []
        for action in fairchem_parser()._actions:
            if not isinstance(action, argparse._HelpAction):
                default = (
                    "" if action.default in (None, False, argparse.SUPPRESS) else action.default
                )
                rows.append((", ".join(action.option_strings), str(default), action.help or ""))
        return self.table(("argument", "default", "meaning"), (30, 15, 55), rows)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("options", Options)
    app.add_directive("fairchem-arguments", FairchemArguments)
    return {"parallel_read_safe": True}
