"""FuSTAL, the study: pseudo-label quality in weakly supervised temporal action localization.

Where the paper's ideas are: ``generator`` (backbone, snippet mining, cross-video contrast),
``proposals``, ``selection`` (IoU score), ``student`` (TriDet), ``distillation`` (EMA labels); beside it
``acmnet`` (three-branch attention), ``ftcl`` (pairs of videos, with ``alignment``) and ``hrpro``, with
``hrpro_instance`` (points, and whole proposals). What measures them: ``metrics``, ``quality``.
``stages.open_study`` is where notebooks begin.
"""

import os

# torch then takes large tensors from huge pages on Linux: a page fault per 2 MB, and not per 4 kB.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
