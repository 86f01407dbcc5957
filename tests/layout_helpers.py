"""Small data folders in every released layout, written here independently of the package."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

DIM = 8
DURATION_S = 40.0
VIDEOS = {"a": "train", "b": "train", "c": "test", "d": "test"}
SPELLINGS = {"train": "validation", "test": "test"}
LAYOUTS = ("cola", "acmnet", "hrpro", "actionformer", "fustal", "own")
COARSE, DENSE = 62, 247  # 25 frames a second at stride 16, 25 at stride 4


def values(video: str, count: int, dim: int = DIM) -> np.ndarray:
    """Features of a video, (count, dim) float32, different for each video."""
    return np.random.default_rng(ord(video)).random((count, dim), dtype=np.float32)


class LayoutFolder:
    """A sound folder of four videos that a test can damage before :meth:`write_annotations`."""

    def __init__(self, root: Path, layout: str) -> None:
        self.root, self.layout = root, layout
        self.database = {
            video: {
                "subset": SPELLINGS[subset].title() if self.has_fps else SPELLINGS[subset],
                "duration": DURATION_S,
                "annotations": [
                    {"label": "jump", "segment": [1.0, 3.5]},
                    {"label": "throw", "segment": [10.0, 12.0]},
                ],
            }
            for video, subset in VIDEOS.items()
        }
        for entry in self.database.values():
            entry.update({"fps": 25.0} if self.has_fps else {"frames": 1000})
        self.splits = {
            role: [video for video, subset in VIDEOS.items() if subset == role]
            for role in ("train", "test")
        }
        for video in VIDEOS:
            self.save(video, values(video, COARSE))
            if layout in ("actionformer", "fustal"):
                self.save_array(root / "i3d_features" / f"{video}.npy", values(video, DENSE))
        self.write_annotations()

    @property
    def has_fps(self) -> bool:
        return self.layout in ("hrpro", "actionformer", "fustal")

    def paths(self, video: str) -> list[Path]:
        """The file, or RGB and flow, of a video's features for the generator."""
        subset = VIDEOS[video]
        folders = {
            "cola": [f"features/{subset}/rgb", f"features/{subset}/flow"],
            "fustal": [f"features/{subset}/rgb", f"features/{subset}/flow"],
            "acmnet": [subset],
            "hrpro": [f"features/{subset}"],
            "actionformer": ["i3d_features"],
            "own": ["features"],
        }
        return [self.root / folder / f"{video}.npy" for folder in folders[self.layout]]

    def save(self, video: str, array: np.ndarray) -> None:
        """Write a video's features, one array or its two halves."""
        paths = self.paths(video)
        for path, part in zip(paths, np.array_split(array, len(paths), axis=-1), strict=True):
            self.save_array(path, part)

    def save_array(self, path: Path, array: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)

    def write_annotations(self) -> None:
        """Write annotations, splits, points and description as they are now."""
        name = {
            "hrpro": "gt_full.json",
            "actionformer": "annotations/thumos14.json",
            "fustal": "annotations/thumos14.json",
        }.get(self.layout, "gt.json")
        (self.root / name).parent.mkdir(exist_ok=True)
        (self.root / name).write_text(json.dumps({"database": self.database}))
        if self.layout in ("cola", "acmnet", "hrpro", "fustal"):
            for role, videos in self.splits.items():
                text = "".join(f"{video}\n" for video in videos)
                (self.root / f"split_{role}.txt").write_text(text)
        if self.layout == "hrpro":
            self.write_points(["jump,0,25,87.5,a,50", "throw,1,250,300,b,275"])
        if self.layout == "own":
            (self.root / "dataset.yaml").write_text(
                "name: four videos\nannotations: gt.json\ntrain_subset: val\ntest_subset: Testing\n"
                "features: {folder: features, stride_frames: 16, window_frames: 16, fps: 25}\n"
            )

    def write_points(self, lines: list[str]) -> None:
        path = self.root / "point_labels" / "point_gaussian.csv"
        path.parent.mkdir(exist_ok=True)
        header = "class,class_index,start_frame,stop_frame,video_id,point"
        path.write_text("\n".join([header, *lines]) + "\n")


def write_wtalc(root: Path) -> None:
    """The same videos as W-TALC's object arrays."""
    names = root / "Thumos14reduced-Annotations"
    names.mkdir(parents=True)
    arrays = np.empty(len(VIDEOS), dtype=object)
    labels, segments = np.empty(len(VIDEOS), dtype=object), np.empty(len(VIDEOS), dtype=object)
    for place, video in enumerate(VIDEOS):
        arrays[place] = values(video, COARSE)
        labels[place] = ["jump", "throw"]
        segments[place] = [[1.0, 3.5], [10.0, 12.0]]
    np.save(root / "Thumos14reduced-I3D-JOINTFeatures.npy", arrays, allow_pickle=True)
    np.save(names / "videoname.npy", np.array([name.encode() for name in VIDEOS]))
    np.save(names / "subset.npy", np.array([SPELLINGS[s].encode() for s in VIDEOS.values()]))
    np.save(names / "duration.npy", np.full((len(VIDEOS), 1), DURATION_S))
    np.save(names / "classlist.npy", np.array([b"jump", b"throw"]))
    np.save(names / "labels.npy", labels, allow_pickle=True)
    np.save(names / "segments.npy", segments, allow_pickle=True)
