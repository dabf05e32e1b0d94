# SPDX-License-Identifier: Apache-2.0
"""Trees on the same 1500 bytes, to hold the networks against."""

import lightgbm
import numpy as np
from sklearn.ensemble import RandomForestClassifier

KINDS = ("lightgbm", "random-forest")


def fit_predict(kind, packets, target, weight, test, rows, classes, seed, threads):
    """Probabilities [len(rows), classes] of ``test[rows]``; absent classes get zeros."""
    # A column that never changes tells nothing and costs time.
    varying = np.flatnonzero(packets.min(0) != packets.max(0))
    if kind == "lightgbm":
        model = lightgbm.LGBMClassifier(
            n_estimators=150,
            learning_rate=0.1,
            num_leaves=31,
            min_child_samples=10,
            colsample_bytree=0.3,
            random_state=seed,
            n_jobs=threads,
            verbose=-1,
        )
    elif kind == "random-forest":
        # No limit to the depth: the paper's forest of depth 4 is no fair comparison.
        model = RandomForestClassifier(n_estimators=200, random_state=seed, n_jobs=threads)
    else:
        raise ValueError(f"no baseline {kind!r}; there are {', '.join(KINDS)}")
    model.fit(packets[:, varying], target, sample_weight=weight)
    out = np.zeros((len(rows), classes))
    for part in np.array_split(np.arange(len(rows)), max(1, len(rows) // 8192)):
        predicted = model.predict_proba(np.asarray(test[rows[part]])[:, varying])
        out[np.ix_(part, model.classes_)] = predicted
    return out
