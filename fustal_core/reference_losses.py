"""The generator's loss and training step as their text reads: video by video and pair by pair.

Slow and plain, to test :mod:`fustal_core.generator` and to time it against; shares no code with it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fustal_core.reference import mine_snippets_by_loops


def generator_loss_by_loops(
    embeddings: Tensor, cas: Tensor, labels: Tensor, mask: Tensor | None = None
) -> Tensor:
    """``total`` of :func:`fustal_core.generator.generator_loss` with the published weights, 0-d.

    Args:
        embeddings: (B, T, H). cas: (B, T, C). labels: (B, C) multi-hot. mask: (B, T) or None.
    """
    classification = 0.0
    for curves, shown in zip(cas, labels, strict=True):
        count = max(1, len(curves) // 5)
        means = torch.stack(
            [curve.sort(descending=True).values[:count].mean() for curve in curves.T]
        )
        p, y = means.softmax(0), shown / shown.sum()
        classification -= (y * p.log() + (1 - y) * (1 - p).log()).mean()
    mined = _mined_by_loops(embeddings, cas, mask)
    action, background = mined["easy_action"], mined["easy_background"]

    def row(query: int, key: int) -> Tensor:
        in_action = nce(mined["hard_action"][query], action[key], background[key])
        return in_action + nce(mined["hard_background"][query], background[key], action[key])

    videos = range(len(labels))
    in_video = sum(row(i, i) for i in videos) / len(videos)
    pairs = [(i, j) for i in videos for j in videos if i < j and torch.equal(labels[i], labels[j])]
    crossed = sum((row(j, i) + row(i, j)) / 2 for i, j in pairs) / max(1, len(pairs))
    return classification / len(videos) + 0.01 * (in_video + 0.2 * crossed)


def nce(query: Tensor, key: Tensor, negatives: Tensor) -> Tensor:
    """One term: query (k, H) and key (k', H) by their means, negatives (n, H); 0-d."""
    query, key = F.normalize(query.mean(0), dim=0), F.normalize(key.mean(0), dim=0)
    logits = torch.stack([query @ key, *(query @ F.normalize(n, dim=0) for n in negatives)]) / 0.07
    return F.cross_entropy(logits[None], torch.zeros(1, dtype=torch.long, device=logits.device))


def _mined_by_loops(
    embeddings: Tensor, cas: Tensor, mask: Tensor | None
) -> dict[str, list[Tensor]]:
    """The embeddings of the mined snippets of each video, with their gradients."""
    actionness = cas.detach().sum(2).cpu().numpy()
    places = np.broadcast_to(np.arange(cas.shape[1])[:, None], (*cas.shape[:2], 1))
    mask = None if mask is None else mask.cpu().numpy()
    chosen = mine_snippets_by_loops(actionness, places, mask)
    return {
        name: [
            own[torch.as_tensor(rows[:, 0])] for own, rows in zip(embeddings, found, strict=True)
        ]
        for name, found in chosen.items()
    }


class PlainGenerator:
    """The generator and Adam, trained one video after the other.

    Args:
        in_channels, hidden_channels, num_classes: D, H, C.
        device: where to train.
    """

    def __init__(
        self, in_channels: int, hidden_channels: int, num_classes: int, device: str = "cpu"
    ) -> None:
        self.rng = torch.Generator(device).manual_seed(0)
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.embedding = nn.Conv1d(in_channels, hidden_channels, 3, padding=1).to(device)
            self.classifier = nn.Conv1d(hidden_channels, num_classes, 1, bias=False).to(device)
        weights = [*self.embedding.parameters(), *self.classifier.parameters()]
        self.optimiser = torch.optim.Adam(weights, lr=1e-4, weight_decay=5e-4, foreach=False)

    def step(self, features: Tensor, labels: Tensor) -> None:
        """One step of training on features (B, T, D) and labels (B, C)."""
        embeddings, cas = [], []
        for video in features:
            hidden = F.relu(self.embedding(video.T[None]))
            kept = hidden * self._kept(hidden, 0.3) / 0.3
            embeddings.append(hidden[0].T)
            cas.append(F.relu(self.classifier(kept))[0].T)
        mask = self._kept(features[..., 0], 0.4) / 0.4
        loss = generator_loss_by_loops(torch.stack(embeddings), torch.stack(cas), labels, mask)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def _kept(self, like: Tensor, share: float) -> Tensor:
        return torch.empty_like(like).bernoulli_(share, generator=self.rng)
