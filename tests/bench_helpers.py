"""Sizes and a machine for the tests of the benchmark, which take moments."""

from fustal_core.bench_data import Sizes
from fustal_core.bench_machine import Machine, measure_machine
from fustal_core.simulator import SimulatorSettings

TINY = Sizes(
    classes=4,
    batch=3,
    length=60,
    channels=6,
    hidden=4,
    student_videos=2,
    student_length=64,
    student_channels=5,
    student_width=16,
    student_mlp=24,
    nms_groups=3,
    nms_segments=12,
    snippets=30,
    dataset_videos=3,
    dataset_snippets=40,
    detections=300,
    videos=9,
    scored_videos=3,
    proposals=12,
    pairs=2,
    lcs_length=6,
    lcs_channels=8,
    fsd_length=3,
    fsd_channels=8,
    whole_snippets=80,
    points=5,
    rois=20,
    roi_channels=3,
    feature_videos=4,
    feature_channels=3,
    simulation=SimulatorSettings(
        num_classes=2, train_videos=2, test_videos=2, feature_dim=4, max_video_s=20
    ),
)


def tiny_machine(device: str) -> Machine:
    """The device's limits, taken from products and copies that are too small to mean anything."""
    return measure_machine(device, (8, 16), copied_bytes=4096)
