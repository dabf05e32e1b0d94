// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"math"
	"reflect"
	"testing"
)

// The expected figures come from scikit-learn 1.x: accuracy_score,
// precision_recall_fscore_support (zero_division=0) and confusion_matrix.
func TestScores(t *testing.T) {
	// "d" never occurs, so it does not count. "e" is only predicted, but it counts.
	c := NewConfusion([]string{"a", "b", "c", "d", "e"})
	truth := []int{0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 0, 1, 2}
	predicted := []int{0, 0, 1, 4, 1, 1, 0, 2, 2, 0, 2, 2, 0, 4, 1}
	for i := range truth {
		c.Add(truth[i], predicted[i])
	}
	got := c.Scores()
	for _, figure := range []struct {
		name      string
		got, want float64
	}{
		{"accuracy", got.Accuracy, 0.6},
		{"macro precision", got.MacroPrecision, 0.525},
		{"macro recall", got.MacroRecall, 0.44166666666666665},
		{"macro F1", got.MacroF1, 0.475},
		{"weighted precision", got.WeightedPrecision, 0.7333333333333333},
		{"weighted recall", got.WeightedRecall, 0.6},
		{"weighted F1", got.WeightedF1, 0.6533333333333334},
		{"precision of a", got.Classes[0].Precision, 0.6},
		{"recall of c", got.Classes[2].Recall, 0.66666667},
		{"F1 of c", got.Classes[2].F1, 0.8},
		{"F1 of e", got.Classes[3].F1, 0},
	} {
		if math.Abs(figure.got-figure.want) > 1e-8 {
			t.Errorf("%s is %v, want %v", figure.name, figure.got, figure.want)
		}
	}
	if want := [][]int{{3, 1, 0, 1}, {1, 2, 0, 1}, {1, 1, 4, 0}, {0, 0, 0, 0}}; !reflect.DeepEqual(got.Confusion, want) {
		t.Errorf("confusion is %v, want %v", got.Confusion, want)
	}
	if got.N != 15 || len(got.Classes) != 4 || got.Classes[3].Name != "e" || got.Classes[1].Support != 4 {
		t.Errorf("%+v", got)
	}
	if empty := NewConfusion([]string{"a"}).Scores(); empty.N != 0 || len(empty.Classes) != 0 || math.IsNaN(empty.Accuracy) {
		t.Errorf("of nothing: %+v", empty)
	}
}
