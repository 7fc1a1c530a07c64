"""``--amp`` with ``optim.amp_dtype``; bfloat16 on a CPU, where the command line leaves it out."""

import pytest
import torch

from dens_ocp.errors import DensError
from dens_ocp.models.fast import choice
from tests.conftest import SMALL_EQUIFORMER, SMALL_ESCN, SMALL_ESEN
from tests.lmdbs import write_s2ef
from tests.runs import make_trainer, small_config

MODELS = [SMALL_EQUIFORMER, SMALL_ESCN, SMALL_ESEN]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_s2ef(folder / "train", 12, seed=0)
    write_s2ef(folder / "val", 6, seed=1)
    return folder


def trainer_of(data, folder, amp_dtype="bfloat16", amp=True, model=SMALL_EQUIFORMER, **options):
    config = small_config(data, model, amp_dtype=amp_dtype, max_epochs=1)
    return make_trainer(config, folder, amp=amp, **options)


def outputs_of(trainer):
    trainer.model.train()
    trainer.step = 1
    torch.manual_seed(0)
    batch = next(iter(trainer.val_loader))
    outputs = trainer._forward(batch)
    terms = trainer.loss_terms(outputs, batch)
    return outputs, trainer.whole_loss(terms)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model["name"])
def test_outputs_are_of_bfloat16_and_in_float32(model, fast, data, tmp_path):
    model = {**model, "fast": fast}
    (half, half_loss), (single, single_loss) = (
        outputs_of(trainer_of(data, tmp_path, amp=amp, model=model)) for amp in (True, False)
    )
    assert half_loss.dtype == torch.float32
    assert half_loss.item() == pytest.approx(single_loss.item(), rel=0.05)
    for name, value in single.items():
        assert half[name].dtype == torch.float32
        off = ((half[name] - value).norm() / value.norm()).item()
        assert 1e-5 < off < 0.1, (name, off)


def test_no_scaler_is_needed_or_kept(data, tmp_path):
    trainer = trainer_of(data, tmp_path, is_debug=False, timestamp_id="half")
    assert trainer.half is torch.bfloat16 and trainer.scaler is None
    trainer.train(disable_eval_tqdm=True)
    path = tmp_path / "checkpoints" / "half" / "checkpoint.pt"
    state = torch.load(path, weights_only=False)
    assert state["amp"] is None and state["step"] == 4
    assert all(each.dtype == torch.float32 for each in trainer.model.parameters())
    again = trainer_of(data, tmp_path, is_debug=False, timestamp_id="again")
    again.load_checkpoint(str(path))
    assert again.step == 4
    metrics = {name: each["metric"] for name, each in again.validate(disable_tqdm=True).items()}
    assert metrics["loss"] > 0


def test_float16_is_of_gpus(data, tmp_path):
    """As fairchem's ``--amp``, which does nothing on a CPU."""
    trainer = trainer_of(data, tmp_path, amp_dtype="float16")
    assert trainer.half is None and trainer.scaler is None


def test_without_amp_the_option_does_nothing(data, tmp_path):
    assert trainer_of(data, tmp_path, amp=False).half is None


def test_another_dtype_is_refused(data, tmp_path):
    with pytest.raises(DensError, match=r"optim.amp_dtype: 'half'.*float16.*bfloat16"):
        trainer_of(data, tmp_path, amp_dtype="half")


def test_the_form_is_timed_in_that_precision(data, tmp_path, monkeypatch):
    seen = []

    def seconds(model, run, device):
        hook = model.register_forward_pre_hook(
            lambda *_: seen.append(torch.is_autocast_enabled("cpu"))
        )
        run()
        hook.remove()
        return 1.0, 2.0

    monkeypatch.setattr(choice, "TIMED_ON", {"cpu"})
    monkeypatch.setattr(choice, "seconds", seconds)
    trainer_of(data, tmp_path).train(disable_eval_tqdm=True)
    assert seen == [True]
