"""A missing wandb key is found before any work, not after the data sets are loaded."""

from __future__ import annotations

import netrc
import os
import sys
from urllib.parse import urlparse

from dens_ocp.errors import DensError

_NO_ACCOUNT_NEEDED = ("offline", "disabled", "dryrun")


def check(logger: object) -> None:
    """Check that the configured logger can be started.

    Args:
        logger: the config's ``logger``: a name, or a mapping with ``name``.

    Raises:
        DensError: no logger, or wandb online with no key on a machine where nobody can be asked.
    """
    name = logger.get("name") if isinstance(logger, dict) else logger
    if not name:
        raise DensError(
            f"logger: {logger!r} does not name a logger; write logger: tensorboard, or logger: "
            "{name: wandb, project: my-project}"
        )
    if not str(name).startswith("wandb"):
        return
    import wandb

    mode = os.environ.get("WANDB_MODE") or wandb.Settings().mode
    if mode in _NO_ACCOUNT_NEEDED or os.environ.get("WANDB_API_KEY") or _in_netrc():
        return
    if sys.stdin is not None and sys.stdin.isatty():
        return  # wandb asks
    raise DensError(
        "logger: wandb, but there is no wandb key and WANDB_MODE is not set. Log in once with "
        "`wandb login`, or set WANDB_API_KEY, or log to files with WANDB_MODE=offline (upload "
        "later with `wandb sync`), or use logger: tensorboard"
    )


def _in_netrc() -> bool:
    host = urlparse(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname
    path = os.environ.get("NETRC") or os.path.expanduser("~/.netrc")
    try:
        return netrc.netrc(path).authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False
