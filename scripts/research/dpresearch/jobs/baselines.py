# SPDX-License-Identifier: Apache-2.0
"""The paper's baselines and boosted trees on the same 1500 bytes, to compare the networks with."""

import lightgbm
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

from dptrain import net

# The last four are the paper's. They are shallow; the forest of full depth is the fair comparison.
KINDS = (
    "lightgbm",
    "random-forest",
    "random-forest-4",
    "decision-tree",
    "logistic-regression",
    "naive-bayes",
)


class Baseline:
    """A fitted estimator over those bytes that vary in the packets it was fitted on."""

    def __init__(self, estimator, varying, classes):
        self.estimator, self.varying, self.classes = estimator, varying, classes

    def predict(self, packets, chunk=8192):
        """Probabilities float64 [N, classes] of uint8 packets [N, 1500]; absent classes get 0."""
        out = np.zeros((len(packets), self.classes))
        for at in range(0, len(packets), chunk):
            part = _scaled(self.estimator, np.asarray(packets[at : at + chunk])[:, self.varying])
            rows = np.arange(at, at + len(part))
            out[np.ix_(rows, self.estimator.classes_)] = self.estimator.predict_proba(part)
        return out


def fit(kind, packets, target, weight, classes, seed, threads):
    """Fits uint8 packets [N, 1500], targets int [N] below ``classes`` and weights float [N]."""
    # A column that never changes says nothing and costs time.
    varying = np.flatnonzero(packets.min(0) != packets.max(0))
    estimator = _estimator(kind, seed, threads)
    estimator.fit(_scaled(estimator, packets[:, varying]), target, sample_weight=weight)
    return Baseline(estimator, varying, classes)


def weights(ds, rows, task):
    """The default network's weights for drawing these rows, scaled to a mean of one."""
    weight = net.sample_weights(ds.flow[rows], task.target[rows])
    return weight / weight.mean()


def _estimator(kind, seed, threads):
    if kind == "lightgbm":
        return lightgbm.LGBMClassifier(
            n_estimators=150,
            learning_rate=0.1,
            num_leaves=31,
            min_child_samples=10,
            colsample_bytree=0.3,
            random_state=seed,
            n_jobs=threads,
            verbose=-1,
        )
    if kind in ("random-forest", "random-forest-4"):
        depth = 4 if kind == "random-forest-4" else None
        return RandomForestClassifier(200, max_depth=depth, random_state=seed, n_jobs=threads)
    if kind == "decision-tree":
        return DecisionTreeClassifier(max_depth=2, random_state=seed)
    if kind == "logistic-regression":
        return LogisticRegression(C=0.1, max_iter=300)
    if kind == "naive-bayes":
        return GaussianNB()
    raise ValueError(f"no baseline {kind!r}; there are {', '.join(KINDS)}")


def _scaled(estimator, packets):
    """Bytes as they are for trees and naive Bayes, 0 to 1 for the regression."""
    if isinstance(estimator, LogisticRegression):
        return packets.astype(np.float32) / 255
    return packets
