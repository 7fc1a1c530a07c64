"""Runs that relax cells: names, shards, devices, options that do not go with them."""

import pytest

from dens_ocp.errors import DensError
from dens_ocp.relaxation.cell_relaxation import CellRelaxation
from dens_ocp.results.pipeline.cell_job import on_gpu, refuse_submit, split_of
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.pipeline.jobs import jobs_of
from dens_ocp.results.pipeline.options import load_settings
from tests.conftest import ROOT
from tests.results.pipeline.test_options import TRAINED, write

OUTPUTS = {"energy": {"level": "system"}, "stress": {"level": "system"}}
WITH_STRESS = {"config": {**TRAINED["config"], "outputs": OUTPUTS}}


def settings_of(tmp_path, trained=WITH_STRESS, **relaxation):
    block = {"dataset": {"format": "ase_db"}, "s2ef": {"val": "v"}, "relax_cell": {"wbm": "w"}}
    path = write(tmp_path / "c.yml", {**block, "relaxation": relaxation})
    return load_settings(path, trained, [])


def test_jobs(tmp_path):
    folder = EvaluationFolder(tmp_path / "out")
    settings = settings_of(tmp_path, fmax="0.05", shards=2)
    assert settings.splits == ("val", "wbm") and settings.relaxation.fmax == 0.05
    assert settings.s2ef["val"]["a2g_args"]["r_stress"] is True
    assert settings.relax_cell == {"wbm": {"format": "ase_db", "src": "w"}}
    first, second, predict = jobs_of(settings, folder)
    assert [first.name, second.name] == ["relax_cell-wbm-0-of-2", "relax_cell-wbm-1-of-2"]
    assert first.result == tmp_path / "out/relaxed_cells/wbm/0-of-2/summary.json"
    assert second.config["shard"] == 1 and second.config["relaxation"]["fmax"] == 0.05
    assert predict.config["task"]["prediction_dtype"] == "float32"
    (only, _) = jobs_of(settings_of(tmp_path), folder)
    assert (only.name, only.result.parent.name) == ("relax_cell-wbm", "wbm")
    for job in (first, only):
        assert split_of(job.name) == "wbm"
    assert split_of("relax-wbm") is None and split_of("predict-relax_cell") is None


def test_no_stress_in_the_checkpoint(tmp_path):
    words = "no output stress.*its outputs: energy.*cell_filter: none"
    with pytest.raises(DensError, match=words):
        settings_of(tmp_path, TRAINED)
    assert settings_of(tmp_path, TRAINED, cell_filter="none").relax_cell


def test_the_name_is_that_of_a_file(tmp_path):
    path = write(tmp_path / "c.yml", {"relax_cell": {"x": "y"}, "name": "a/b"})
    with pytest.raises(DensError, match="evaluation.name: 'a/b'"):
        load_settings(path, WITH_STRESS, [])


def test_submit_is_refused(tmp_path):
    """By the command too, before anything is written (tests/scenarios/test_material_evaluation)."""
    jobs = jobs_of(settings_of(tmp_path), EvaluationFolder(tmp_path / "out"))
    with pytest.raises(DensError, match="--submit: relax_cell-wbm.*slurm/evaluate"):
        refuse_submit(jobs)
    refuse_submit(jobs[1:])


def test_shards_are_dealt_to_gpus(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    shown = [on_gpu(shard, ["--num-gpus", "2"])["CUDA_VISIBLE_DEVICES"] for shard in range(4)]
    assert shown == ["0", "1", "0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert on_gpu(3, ["--num-gpus", "2"]) == {"CUDA_VISIBLE_DEVICES": "7"}
    assert on_gpu(3, []) == {} == on_gpu(3, ["--cpu", "--num-gpus", "2"])


def test_the_config_in_the_repository(tmp_path):
    """Matbench Discovery's settings of eqV2 S DeNS, in shards."""
    settings = load_settings(ROOT / "configs/omat24/evaluate.yml", WITH_STRESS, [])
    assert settings.relaxation == CellRelaxation(shards=8)
    jobs = [job.name for job in jobs_of(settings, EvaluationFolder(tmp_path))]
    assert len(jobs) == 9 and jobs[-1] == "predict-val"
