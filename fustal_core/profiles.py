"""The profiles, and the constants that a method was published with on other data.

A profile is what it changes of the defaults, which are the published hyper-parameters for THUMOS'14:
``paper`` next to nothing, ``quick`` makes the study fit two CPU cores, ``smoke`` takes seconds for
a training, two minutes for all notebooks, and serves the tests.
"""

from __future__ import annotations

from typing import Any

_QUICK_STUDENT = {
    "width": 96,
    "mlp_width": 144,
    "max_length": 256,
    "batch_size": 4,
    "global_mean": "masked",
    "switch_epoch": 10,
    "epochs": 16,
    "learning_rate": 1e-3,
    "ema_decay": 0.99,
    "pre_nms_top_k": 200,
    "max_detections": 400,
    "evaluate_every": 4,
}

_QUICK_GENERATOR = {
    "hidden_channels": 256,
    "length": 400,
    "iterations": 300,
    "learning_rate": 1e-3,
    "train_classes": "video labels",
}
_SMOKE_GENERATOR = {
    "hidden_channels": 32,
    "length": 64,
    "iterations": 20,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "train_classes": "video labels",
    "checkpoint_every": 10,
}

PROFILE_VALUES: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {"student": {"evaluate_every": 10}},
    "quick": {
        "generation": _QUICK_GENERATOR,
        "acm_net": {**_QUICK_GENERATOR, "iterations": 600},
        "ftcl": {
            "epochs": 5,
            "pairs_per_epoch": 200,
            "fsd_channels": 128,
            "learning_rate": 1e-3,
        },
        "hr_pro": {
            "iterations": 150,
            "attention_dropout": 0.0,
            "learning_rate": 1e-3,
            "train_classes": "video labels",
        },
        "hr_pro_instance": {"epochs": 10, "learning_rate": 5e-4},
        "student": _QUICK_STUDENT,
    },
    "smoke": {
        "simulation": {
            "num_classes": 4,
            "train_videos": 12,
            "test_videos": 8,
            "feature_dim": 16,
            "max_video_s": 60.0,
        },
        "generation": _SMOKE_GENERATOR,
        "acm_net": _SMOKE_GENERATOR,
        "ftcl": {
            "epochs": 2,
            "batch_size": 8,
            "fsd_channels": 16,
            "learning_rate": 1e-3,
            "checkpoint_every": 4,
        },
        "hr_pro": {
            "iterations": 10,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "train_classes": "video labels",
            "checkpoint_every": 4,
        },
        "hr_pro_instance": {
            "epochs": 2,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "checkpoint_every": 2,
        },
        "ablation": {"seeds": (0, 1), "resamples": 50},
        "analysis": {
            "term_seeds": 2,
            "difficulties": "instance_spread, border_ambiguity",
            "difficulty_seeds": (0,),
        },
        "student": {
            **_QUICK_STUDENT,
            "width": 32,
            "mlp_width": 48,
            "max_length": 128,
            "batch_size": 8,
            "switch_epoch": 2,
            "epochs": 4,
            "ema_decay": 0.9,
            "pre_nms_top_k": 50,
            "max_detections": 100,
            "evaluate_every": 1,
        },
    },
}

# What fits other data than THUMOS'14, whose constants are the defaults.
#
# ActivityNet 1.3. Published: all of ACM-Net and FTCL but how long ACM-Net trains (at least 500 epochs of
# the data in hand, which `acm_net.iterations` sets), and the tIoU thresholds. The generators of CoLA's
# kind take over their length, class threshold and NMS, HR-Pro the NMS: no others are known to this
# study, nor are T-CAS cuts, selection or a student for this data, which stay as they are but for one.
# The student's length is ours, from the data: they come with one set of features, at a step of 0.64 s;
# 384 of those are 246 s, longer than nearly all videos, which so are seen whole, as they must be where
# an action takes half of its video. A border is found up to 16 bins of the last level's stride away,
# 16 * 32 * 0.64 s = 328 s, on either side. Simulated data has that shape: the number of actions, their
# share and the mean duration of a video are about those of the real data.
#
# 50 Salads, for which nothing is published. ACM-Net's constants follow from THUMOS'14's: scores and
# activations are softmaxes over the classes, so what one class gets shrinks with the number of classes
# that a video shows, 2.71 on average in its training clips; the thresholds on both are divided by it.
# HR-Pro's projection and the length of its trainings are this study's own.
CONSTANT_VALUES: dict[str, dict[str, dict[str, Any]]] = {
    "thumos14": {},
    "activitynet13": {
        "simulation": {
            "action_share": 0.5,
            "actions_per_video": 1.5,
            "video_s": 120.0,
            "shared_features": True,
        },
        "generation": {"length": 75, "class_threshold": 0.1, "nms_tiou": 0.9},
        "acm_net": {
            "length": 75,
            "instance_share": 2,
            "context_share": 10,
            "background_share": 10,
            "instance_weight": 5.0,
            "guide_weight": 5e-3,
            "sparsity_weight": 0.0,
            "weight_decay": 1e-3,
            "class_threshold": 0.1,
            "nms_tiou": 0.9,
        },
        "ftcl": {"weight_decay": 1e-3},
        "hr_pro": {"nms_tiou": 0.9},
        "student": {"max_length": 384},
        "evaluation": {"further_tiou": "0.5:0.05:0.95"},
    },
    "salads50": {
        "acm_net": {"class_threshold": 0.092, "cas_thresholds": (0.055, 0.074)},
        "hr_pro": {"projected_channels": 256, "iterations": 400, "learning_rate": 5e-4},
        "hr_pro_instance": {"epochs": 9, "learning_rate": 3e-4},
    },
}
