"""The ways to bound /job, and the choice between them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from broadway_grader.errors import SetupError
from broadway_grader.volumes.loop import LoopVolumes
from broadway_grader.volumes.port import Bound, Volumes
from broadway_grader.volumes.tmpfs import TmpfsVolumes
from broadway_grader.volumes.watched import WatchedVolumes

log = logging.getLogger(__name__)

#: Every way by its name.
VOLUMES: Mapping[str, Callable[[Bound, Path], Volumes]] = {
    "loop": LoopVolumes,
    "tmpfs": TmpfsVolumes,
    "watch": lambda bound, _: WatchedVolumes(bound),
}


def choose(wanted: str, bound: Bound, directory: Path, *, visible: bool) -> Volumes:
    """The way of that name, or for `auto` the best that works here: loop, else watch. Opened.

    `directory`: where the jobs' directories are. `visible`: whether what runs the stages sees what we mount. Says
    which and why in one line of the log. Raises SetupError if it does not work.
    """
    problems = []
    for name in ("loop", "watch") if wanted == "auto" else (wanted,):
        volumes = VOLUMES[name](bound, directory)
        if wanted == "auto" and name != "watch" and not visible:
            problems.append(f"{name}: what runs the stages does not see what this grader mounts")
            continue
        try:
            description = volumes.open()
        except (SetupError, OSError) as error:
            problems.append(f"{name}: {error}")
        else:
            reason = f" (auto; {'; '.join(problems)})" if problems else " (auto)" if wanted == "auto" else ""
            log.info("/job %s: %s", name, description + reason)
            return volumes
    raise SetupError(f"/job cannot be bounded like this: {'; '.join(problems)}")
