"""FuSTAL, the study: pseudo-label quality in weakly supervised temporal action localization.

Where the paper's ideas are: ``generator`` (backbone, snippet mining, cross-video contrast),
``proposals``, ``selection`` (IoU score), ``student`` (TriDet), ``distillation`` (EMA labels); beside it
``acmnet`` (three-branch attention), ``ftcl`` (pairs of videos, with ``alignment``) and ``hrpro``, with
``hrpro_instance`` (points, and whole proposals). What measures them: ``metrics``, ``quality``.
``stages.open_study`` is where notebooks begin.
"""
