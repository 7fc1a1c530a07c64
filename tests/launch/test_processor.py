"""CPU or GPU, for ``fairchem main`` and for the commands that hand its options on."""

from types import SimpleNamespace

import pytest
import torch
from fairchem.core.common.flags import flags

from dens_ocp.launch import processor
from dens_ocp.tools import evaluate
from dens_ocp.tools.ablate import command as ablate


def parsed(name, words):
    if name == "main":
        return flags.get_parser().parse_args(["--config-yml", "c.yml", *words])
    if name == "evaluate":
        needed = ["c.pt", "--config-yml", "c.yml"]
        return SimpleNamespace(**evaluate.command.make_context(name, [*needed, *words]).params)
    return SimpleNamespace(**ablate.command.make_context(name, [__file__, *words]).params)


@pytest.mark.parametrize("name", ["main", "evaluate", "ablate"])
@pytest.mark.parametrize("gpu", [False, True])
def test_the_processor_of_a_command(monkeypatch, capsys, name, gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    for words, cpu, amp, notes in (
        ([], not gpu, False, 0 if gpu else 1),
        (["--cpu"], True, False, 0),
        (["--amp"], not gpu, gpu, 0 if gpu else 2),
        (["--cpu", "--amp"], True, False, 1),
        (["--submit"], False, False, 0),  # the job runs elsewhere
        (["--submit", "--amp"], False, True, 0),
    ):
        args = parsed(name, words)
        processor.choose(args)
        assert (args.cpu, args.amp) == (cpu, amp), words
        said = capsys.readouterr().err.splitlines()
        assert len(said) == notes and all(line.startswith("note: ") for line in said), words
