"""Directives that write options from the code: ``options``, those of a section of a config
(``dens-ocp options SECTION``); ``fairchem-arguments``, those of ``fairchem main``; ``help``, what
the commands of ``dens-ocp`` print."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import click
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from dens_ocp.settings.command_line import fairchem_parser
from dens_ocp.tools import cli, options


class _Table(SphinxDirective):
    """A table of options: name and default, meaning. Two columns fit on a phone."""

    def table(self, name: str, rows: Iterable[tuple[str, str, str]]) -> list[nodes.Node]:
        group = nodes.tgroup(cols=2)
        group += [nodes.colspec(colwidth=width) for width in (35, 65)]
        group += nodes.thead("", _row(nodes.paragraph(text=name), nodes.paragraph(text="meaning")))
        body = nodes.tbody()
        for option, default, meaning in rows:
            named = nodes.paragraph("", "", nodes.literal(text=option))
            if default:
                named += [nodes.Text(" (default "), nodes.literal(text=default), nodes.Text(")")]
            text = nodes.paragraph()
            self.state.nested_parse(StringList([meaning], "options"), 0, text)
            body += _row(named, *text.children[:1])
        group += body
        return [nodes.table("", group, classes=["colwidths-given", "options"])]


def _row(*cells: nodes.Node) -> nodes.row:
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
            "option",
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
            if isinstance(action, argparse._HelpAction):
                continue
            given = isinstance(action.default, str | int) and action.default is not False
            default = str(action.default) if given else ""
            if action.dest == "run_dir":
                default = "the working directory"
            rows.append((", ".join(action.option_strings), default, action.help or ""))
        return self.table("argument", rows)


class Help(SphinxDirective):
    """``{help}``: what ``--help`` prints, of each command and its commands."""

    def run(self) -> list[nodes.Node]:
        top = click.Context(cli._GROUP, info_name="dens-ocp", max_content_width=90)
        names = [name for name in cli.COMMANDS if name != "main"]
        return [self._section(cli._GROUP.get_command(top, name), name, top) for name in names]

    def _section(self, command: click.Command, name: str, above: click.Context) -> nodes.section:
        context = click.Context(command, info_name=name, parent=above)
        title = context.command_path
        text = command.get_help(context)
        section = nodes.section("", nodes.title(text=title), ids=[nodes.make_id(title)])
        section += nodes.literal_block(text, text, language="none")
        if isinstance(command, click.Group):
            section += [
                self._section(each, each_name, context)
                for each_name in command.list_commands(context)
                if (each := command.get_command(context, each_name)) and not each.hidden
            ]
        return section


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("help", Help)
    app.add_directive("options", Options)
    app.add_directive("fairchem-arguments", FairchemArguments)
    return {"parallel_read_safe": True}
