"""Models on new features: what the study found, from the weight file and features alone."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli_helpers import assert_refused, fustal

from fustal_core import cli_predict
from fustal_core.annotations import DataError
from fustal_core.config import SettingsError
from fustal_core.feature_folder import FeatureFolder
from fustal_core.features import FeatureStore
from fustal_core.predict import predict, read_durations
from fustal_core.stages import Study, open_study
from fustal_core.weights import LoadedModel, load_model

COLUMNS = ["video", "label", "t_start", "t_end", "score"]
GENERATOR, STUDENT = "01_generation/cross-video", "03_training/selected+ema"
HR_PRO = [f"01_generation/{method}" for method in ("hr-pro-snippet", "hr-pro")]
TINY = {
    "generation.iterations": 10,
    "hr_pro.iterations": 6,
    "student.switch_epoch": 2,
    "student.epochs": 3,
    "student.evaluate_every": 0,
}


@dataclass(frozen=True)
class Run:
    """A finished run, and the features of its test videos as files.

    joined: folder by product name, of HR-Pro the generator's; streams: the student's as rgb/ and
    flow/; annotations: a file.
    """

    study: Study
    joined: dict[str, Path]
    streams: Path
    annotations: Path

    def product(self, name: str) -> Path:
        return self.study.run_dir / name

    def model(self, name: str) -> LoadedModel:
        return load_model(self.product(name) / "weights.safetensors")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("predict")
    study = open_study("simulated", "smoke", 0, folder / "run", TINY)
    study.student()
    study.generation("hr-pro")
    dataset = study.dataset
    stores = {GENERATOR: dataset.generator_features, STUDENT: dataset.student_features}
    joined = {name: folder / name.partition("/")[0] for name in stores}
    for name, store in stores.items():
        save_videos(joined[name], store, dataset.video_names("test"))
    joined |= dict.fromkeys(HR_PRO, joined[GENERATOR])
    save_videos(folder / "streams/rgb", stores[STUDENT], dataset.video_names("test"), slice(0, 8))
    save_videos(folder / "streams/flow", stores[STUDENT], dataset.video_names("test"), slice(8, 16))
    annotations = folder / "gt.json"
    annotations.write_text(json.dumps({"database": database(study)}))
    return Run(study, joined, folder / "streams", annotations)


def save_videos(
    folder: Path, store: FeatureStore, videos: list[str], channels: slice = slice(None)
) -> None:
    folder.mkdir(parents=True)
    for video in videos:
        np.save(folder / f"{video}.npy", store[video].numpy()[:, channels])


def database(study: Study) -> dict[str, dict]:
    return {
        video: {"subset": "test", "duration": row["duration_s"], "fps": 25.0, "annotations": []}
        for video, row in study.dataset.videos.iterrows()
    }


@pytest.mark.parametrize("name", [GENERATOR, *HR_PRO, STUDENT])
def test_the_studys_own_features_give_its_own_detections(
    run: Run, tmp_path: Path, name: str
) -> None:
    """To the bit, through the command line and from Python."""
    output = tmp_path / "new" / "folder" / "found.json"
    weights = run.product(name) / "weights.safetensors"
    options = ["--durations", run.annotations, "--device", "cpu"]
    result = fustal(
        "predict", weights, "--features", run.joined[name], "--output", output, *options
    )
    assert result.returncode == 0, result.stderr
    content = json.loads(output.read_text())
    assert set(content) == {"version", "results", "external_data"}
    study = json.loads((run.product(name) / "detections.json").read_text())
    assert content["results"] == study["results"]
    assert list(content["results"]) == run.study.dataset.video_names("test")

    durations_s, _ = read_durations(run.annotations)
    found = predict(run.model(name), run.joined[name], durations_s=durations_s)
    expected = pd.read_parquet(run.product(name) / "detections.parquet")
    assert len(found) > 50
    pd.testing.assert_frame_equal(found, expected[COLUMNS], check_exact=True)


def test_two_streams_are_joined_rgb_first(run: Run) -> None:
    joined, streams = FeatureFolder(run.joined[STUDENT]), FeatureFolder(run.streams)
    assert list(streams) == list(joined)
    for video in joined:
        np.testing.assert_array_equal(streams[video], joined[video])
    model = run.model(STUDENT)
    pd.testing.assert_frame_equal(predict(model, run.streams), predict(model, joined))


def test_a_video_lasts_as_long_as_its_snippets_unless_it_is_said(run: Run) -> None:
    """The student's detections end where the video does."""
    model, features = run.model(STUDENT), FeatureFolder(run.joined[STUDENT])
    ends = predict(model, features).groupby("video")["t_end"].max()
    for video in features:
        assert ends[video] <= ((len(features[video]) - 1) * 4 + 16) / 25
    shorter = {video: ((len(features[video]) - 4) * 4 + 16) / 25 for video in features}
    cut = predict(model, features, durations_s=shorter).groupby("video")["t_end"].max()
    assert (cut <= pd.Series(shorter)).all()
    assert (cut < ends).any()


def test_times_follow_the_clock_that_is_given(run: Run) -> None:
    """Twice the frame rate halves the times, to the bit; twice the stride doubles the distances."""
    model, features = run.model(STUDENT), run.joined[STUDENT]
    usual = predict(model, features)
    fast = predict(model, features, fps=50.0)
    np.testing.assert_array_equal(fast["t_start"], usual["t_start"] / 2)
    np.testing.assert_array_equal(fast["t_end"], usual["t_end"] / 2)
    named = predict(model, features, fps={usual["video"][0]: 50.0})
    mine = usual["video"] == usual["video"][0]
    np.testing.assert_array_equal(named["t_end"][mine], fast["t_end"][mine])
    np.testing.assert_array_equal(named["t_end"][~mine], usual["t_end"][~mine])
    wide = predict(model, features, stride_frames=8, window_frames=32)
    np.testing.assert_allclose(wide["t_end"], 2 * usual["t_end"])


def test_fps_must_be_said_where_training_had_several(run: Run) -> None:
    trained = run.model(GENERATOR)
    model = replace(trained, clock=trained.clock.model_copy(update={"fps": None}))
    features = run.joined[GENERATOR]
    with pytest.raises(SettingsError, match="different frame rates"):
        predict(model, features)
    with pytest.raises(DataError, match="no fps given") as caught:
        predict(model, features, fps={"sim_test_0001": 25.0})
    assert len(caught.value.problems) == len(FeatureFolder(features)) - 1
    with pytest.raises(DataError, match="fps 0, expected a positive number"):
        predict(trained, features, fps=0)
    pd.testing.assert_frame_equal(predict(model, features, fps=25.0), predict(trained, features))


def test_hr_pro_follows_the_clock_too(run: Run) -> None:
    """Twice the stride doubles the times: a video is cut where its snippets are, not its seconds."""
    model, features = run.model(HR_PRO[-1]), run.joined[HR_PRO[-1]]
    model = replace(model, settings=model.settings.model_copy(update={"legacy_plus_one": False}))
    usual = predict(model, features)
    wide = predict(model, features, stride_frames=32)
    columns = ["t_start", "t_end"]
    order = [*columns, "label", "video"]
    usual, wide = (own.sort_values(order).reset_index(drop=True) for own in (usual, wide))
    np.testing.assert_allclose(wide[columns], 2 * usual[columns], rtol=1e-5, atol=1e-5)


def test_the_best_are_kept(run: Run) -> None:
    model, features = run.model(GENERATOR), run.joined[GENERATOR]
    everything = predict(model, features)
    best = predict(model, features, top=2)
    for video, mine in everything.groupby("video"):
        expected = mine["score"].nlargest(2).sort_values()
        found = best.loc[best["video"] == video, "score"].sort_values()
        np.testing.assert_array_equal(found, expected)
    level = everything["score"].median()
    high = predict(model, features, min_score=level)
    pd.testing.assert_frame_equal(
        high, everything[everything["score"] >= level].reset_index(drop=True)
    )


def test_a_video_with_nothing_found_has_an_empty_list(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "none.json"
    weights = run.product(STUDENT) / "weights.safetensors"
    arguments = ["--features", run.joined[STUDENT], "--output", output, "--min-score", "2"]
    result = fustal("predict", weights, *arguments)
    assert result.returncode == 0, result.stderr
    assert "stride 4 frames (as in training)" in result.stderr
    results = json.loads(output.read_text())["results"]
    assert results == {video: [] for video in run.study.dataset.video_names("test")}


class Counted(Mapping):
    """Features made when asked for; counts how many of them are alive at once."""

    def __init__(self, num_videos: int) -> None:
        self.num_videos, self.alive, self.most = num_videos, 0, 0

    def __getitem__(self, video: str) -> np.ndarray:
        array = np.random.default_rng(int(video)).random((40, 16), dtype=np.float32)
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(array, self._gone)
        return array

    def _gone(self) -> None:
        self.alive -= 1

    def __iter__(self) -> Iterator[str]:
        return (f"{i:03}" for i in range(self.num_videos))

    def __len__(self) -> int:
        return self.num_videos


@pytest.mark.parametrize("name", [GENERATOR, HR_PRO[-1], STUDENT])
def test_features_are_held_a_few_at_a_time(
    run: Run, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fustal_core.predict.POSITIONS_HELD", 80)
    features, calls = Counted(30), []
    found = predict(
        run.model(name), features, progress=lambda done, total, _: calls.append((done, total))
    )
    assert found["video"].nunique() == 30
    assert features.most <= 5
    assert calls[-1] == (30, 30)


def break_features(folder: Path) -> dict[str, str]:
    """Spoil the files of a folder, one after the other; what must be said of each."""
    paths = sorted(folder.glob("*.npy"))
    array = np.load(paths[0])
    np.save(paths[0], array[:, :8])
    np.save(paths[1], np.load(paths[1]).T)
    holes = np.load(paths[2])
    holes[3, 2], holes[5, 1] = np.nan, np.inf
    np.save(paths[2], holes)
    np.save(paths[3], array[:1])
    np.save(paths[4], np.array([{"a": 1}], dtype=object), allow_pickle=True)
    paths[5].write_bytes(paths[5].read_bytes()[:-50])
    np.save(paths[6], array[None])
    fragments = (
        "found 8 channels, expected 16 as in training: RGB or flow alone?",
        "transposed? expected (T, 16)",
        "NaN or Inf in 2 of",
        "found 1 snippets, expected at least 2",
        "not a readable .npy: found pickled objects",
        "not a readable .npy: truncated",
        "expected (T, D)",
    )
    return {str(path): text for path, text in zip(paths, fragments, strict=False)}


def test_all_problems_are_said_at_once_and_nothing_is_written(run: Run, tmp_path: Path) -> None:
    folder, output = tmp_path / "features", tmp_path / "out" / "found.json"
    store, videos = run.study.dataset.student_features, run.study.dataset.video_names("test")
    save_videos(folder, store, videos)
    expected = break_features(folder)
    weights = run.product(STUDENT) / "weights.safetensors"
    result = fustal("predict", weights, "--features", folder, "--output", output)
    assert_refused(result, 1)
    lines = result.stderr.splitlines()
    for path, fragment in expected.items():
        assert sum(f"{path}: " in line and fragment in line for line in lines) == 1, path
    assert str(folder / f"{videos[7]}.npy") not in result.stderr
    assert not output.parent.exists()


def test_problems_of_two_streams(run: Run, tmp_path: Path) -> None:
    rgb, flow = (
        {path.stem: np.load(path) for path in (run.streams / name).glob("*.npy")}
        for name in ("rgb", "flow")
    )
    short, lonely, turned = sorted(rgb)[:3]
    flow[short] = flow[short][:-2]
    del flow[lonely]
    rgb[turned], flow[turned] = rgb[turned].T, flow[turned].T
    for name, arrays in (("rgb", rgb), ("flow", flow)):
        (tmp_path / name).mkdir()
        for video, array in arrays.items():
            np.save(tmp_path / name / f"{video}.npy", array)
    with pytest.raises(DataError) as caught:
        predict(run.model(STUDENT), tmp_path)
    first, second, third = caught.value.problems
    count = len(rgb[short])
    assert f"found {count} and {count - 2} snippets, expected as many in both" in first
    assert str(tmp_path / "flow" / f"{lonely}.npy") in second
    assert "transposed?" in third


def test_what_macos_leaves_beside_a_file_is_no_video(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((3, 2), np.float32))
    (tmp_path / "._v.npy").write_bytes(b"Mac OS X")
    assert list(FeatureFolder(tmp_path)) == ["v"]


def test_folders_that_hold_no_features(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "release" / "test").mkdir(parents=True)
    (tmp_path / "half" / "rgb").mkdir(parents=True)
    both = tmp_path / "both"
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / os.fsdecode(b"\xff.npy")).touch()
    for name in ("rgb", "flow"):
        (both / name).mkdir(parents=True)
    np.save(both / "v.npy", np.zeros((3, 2)))
    for name, fragment in (
        ("none", "no such folder"),
        ("empty", "no VIDEO.npy in it"),
        ("release", "name one of its folders: test?"),
        ("half", "flow: no such folder, but"),
        ("odd", r"found '\\udcff.npy', expected a name that can be printed"),
        ("both", "expected one or the other"),
    ):
        with pytest.raises(DataError, match=fragment):
            FeatureFolder(tmp_path / name)


def test_durations_must_be_there_and_fit(run: Run, tmp_path: Path) -> None:
    durations_s, fps = read_durations(run.annotations)
    assert set(fps.values()) == {25.0}
    model, features = run.model(STUDENT), run.joined[STUDENT]
    first, second, *_ = run.study.dataset.video_names("test")
    durations_s[second] *= 2
    del durations_s[first]
    with pytest.raises(DataError) as caught:
        predict(model, features, durations_s=durations_s)
    missing, wrong = caught.value.problems
    assert f"video {first}: no duration given" in missing
    assert f"video {second}: found" in wrong
    assert "at 25 fps, stride 4, window 16" in wrong


def test_durations_may_be_a_plain_table(tmp_path: Path) -> None:
    path = tmp_path / "durations.json"
    path.write_text('{"a": 3, "b": 4.5}')
    assert read_durations(path) == ({"a": 3.0, "b": 4.5}, {})
    path.write_text('{"a": "3", "b": -1, "c": true, "d": 2, "e": 1%s, "f": 1e-310}' % ("0" * 400))
    with pytest.raises(DataError) as caught:
        read_durations(path)
    assert len(caught.value.problems) == 5
    for text, fragment in (("[3, 4]", "database"), ("null", "found null, expected an object")):
        path.write_text(text)
        with pytest.raises(DataError, match=fragment):
            read_durations(path)


@pytest.mark.parametrize(
    ("options", "status", "fragment"),
    [
        (["--fps", "0"], 2, "--fps: expected a positive number"),
        (["--stride-frames", "0"], 2, "--stride-frames"),
        (["--device", "tpu"], 2, "'tpu'"),
        (["--top", "0"], 2, "--top"),
        (["--output", "."], 2, "is a folder"),
        (["--durations", "none.json"], 1, "none.json: no such file"),
        (["--features", "none"], 1, "none: no such folder"),
    ],
)
def test_mistakes_on_the_command_line(
    run: Run, tmp_path: Path, options: list[str], status: int, fragment: str
) -> None:
    output = tmp_path / "found.json"
    weights = run.product(GENERATOR) / "weights.safetensors"
    arguments = ["--features", run.joined[GENERATOR], "--output", output, *options]
    assert_refused(fustal("predict", weights, *arguments), status, fragment)
    assert not output.exists()


@pytest.mark.parametrize(
    "options", [{"min_score": float("nan")}, {"fps": 1e-310}, {"fps": float("inf")}]
)
def test_absurd_numbers_are_refused(tmp_path: Path, options: dict[str, float]) -> None:
    (name,) = options
    with pytest.raises(SettingsError, match=f"--{name.replace('_', '-')}: expected a"):
        cli_predict.predict(tmp_path / "w", tmp_path, tmp_path / "found.json", **options)


def test_videos_that_overflow_in_the_model_are_named(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [("a", "run", 0.0, 1.0, 0.5), ("b", "run", 0.0, 1.0, np.nan)]
    found = pd.DataFrame(rows, columns=COLUMNS)
    monkeypatch.setattr("fustal_core.predict._propose", lambda *_: found)
    with pytest.raises(DataError, match=r"^video b: found NaN or Inf"):
        predict(run.model(GENERATOR), run.joined[GENERATOR])


@pytest.mark.parametrize("name", ["stride_frames", "window_frames"])
def test_absurd_clocks_are_refused(run: Run, name: str) -> None:
    with pytest.raises(SettingsError, match="expected 1 to 1000000000 frames"):
        predict(run.model(GENERATOR), run.joined[GENERATOR], **{name: 10**400})


def test_an_output_that_is_read_or_no_file_is_refused_and_stays(tmp_path: Path) -> None:
    weights, feature, durations, pipe = (tmp_path / n for n in ("w", "v.npy", "d.json", "pipe"))
    for path in (weights, feature, durations):
        path.write_text("kept")
    os.mkfifo(pipe)
    (link := tmp_path / "link").symlink_to(weights)
    for output in (weights, feature, durations, pipe, link):
        with pytest.raises(SettingsError, match="expected a"):
            cli_predict.predict(weights, tmp_path, output, durations=durations)
    assert {path.read_text() for path in (weights, feature, durations)} == {"kept"}
    assert pipe.is_fifo()
    assert link.is_symlink()


def test_a_file_that_is_no_weights_is_refused(run: Run, tmp_path: Path) -> None:
    arguments = ["--features", run.joined[GENERATOR], "--output", tmp_path / "found.json"]
    result = fustal("predict", run.annotations, *arguments)
    assert_refused(result, 1, str(run.annotations), "not a whole safetensors file")
