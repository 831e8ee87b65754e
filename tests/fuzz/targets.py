"""All targets by name: a function that takes any bytes, and inputs to begin with.

What holds always: a target raises nothing but what shows a bug.  An error that the code under
test declares is caught in the target; whatever else comes out is a finding.
"""

from __future__ import annotations

from .clients import CLIENT_TARGETS
from .decoders import DECODER_TARGETS
from .handshake import TLS_TARGETS
from .lane_ends import RECEIVER_TARGETS
from .lines import LINE_TARGETS
from .pair import PAIR_TARGETS
from .peer import PEER_TARGETS
from .rows import ROW_TARGETS
from .target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        *DECODER_TARGETS,
        *RECEIVER_TARGETS,
        *CLIENT_TARGETS,
        *TLS_TARGETS,
        *PEER_TARGETS,
        *LINE_TARGETS,
        *PAIR_TARGETS,
        *ROW_TARGETS,
    )
}
