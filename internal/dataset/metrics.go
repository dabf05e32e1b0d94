// SPDX-License-Identifier: Apache-2.0

package dataset

// Class holds the metrics of one label.
type Class struct {
	Name      string  `json:"name"`
	Precision float64 `json:"precision"`
	Recall    float64 `json:"recall"`
	F1        float64 `json:"f1"`
	Support   int     `json:"support"` // number of cases that truly have the label
}

// Scores holds the metrics of a classification, defined as in scikit-learn: a quotient
// with denominator 0 is 0, and averages are over the labels that occur in the truth or
// in the predictions.
type Scores struct {
	N                 int     `json:"n"`
	Accuracy          float64 `json:"accuracy"`
	MacroPrecision    float64 `json:"macro_precision"`
	MacroRecall       float64 `json:"macro_recall"`
	MacroF1           float64 `json:"macro_f1"`
	WeightedPrecision float64 `json:"weighted_precision"`
	WeightedRecall    float64 `json:"weighted_recall"`
	WeightedF1        float64 `json:"weighted_f1"`
	Classes           []Class `json:"classes"`
	Confusion         [][]int `json:"confusion"` // row: truth, column: prediction, both in the order of Classes
}

// Confusion counts pairs of true and predicted label.
type Confusion struct {
	labels []string
	counts [][]int
}

// NewConfusion returns an empty table for the labels.
func NewConfusion(labels []string) *Confusion {
	c := &Confusion{labels: labels, counts: make([][]int, len(labels))}
	for i := range c.counts {
		c.counts[i] = make([]int, len(labels))
	}
	return c
}

// Add counts one pair of labels, given as indexes.
func (c *Confusion) Add(truth, predicted int) { c.counts[truth][predicted]++ }

// Scores returns the metrics of all counted pairs.
func (c *Confusion) Scores() Scores {
	s := Scores{Classes: []Class{}, Confusion: [][]int{}}
	right := 0
	var occur []int // labels that occur
	support, predicted := make([]int, len(c.labels)), make([]int, len(c.labels))
	for i, row := range c.counts {
		for j, n := range row {
			support[i] += n
			predicted[j] += n
			s.N += n
		}
		right += row[i]
	}
	for i := range c.labels {
		if support[i]+predicted[i] > 0 {
			occur = append(occur, i)
		}
	}
	if s.N == 0 {
		return s
	}
	s.Accuracy = ratio(right, s.N)
	for _, i := range occur {
		hits := c.counts[i][i]
		class := Class{
			Name:      c.labels[i],
			Precision: ratio(hits, predicted[i]),
			Recall:    ratio(hits, support[i]),
			F1:        ratio(2*hits, support[i]+predicted[i]),
			Support:   support[i],
		}
		s.Classes = append(s.Classes, class)
		row := make([]int, 0, len(occur))
		for _, j := range occur {
			row = append(row, c.counts[i][j])
		}
		s.Confusion = append(s.Confusion, row)

		macro, weight := 1/float64(len(occur)), ratio(support[i], s.N)
		s.MacroPrecision += macro * class.Precision
		s.MacroRecall += macro * class.Recall
		s.MacroF1 += macro * class.F1
		s.WeightedPrecision += weight * class.Precision
		s.WeightedRecall += weight * class.Recall
		s.WeightedF1 += weight * class.F1
	}
	return s
}

func ratio(a, b int) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}
