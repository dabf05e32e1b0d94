// SPDX-License-Identifier: Apache-2.0

// Package classifier turns samples into verdicts. It runs models over packet vectors
// in batches and combines the results of a flow's samples into its verdicts.
//
// Live samples go through [Classifier.Submit] and [Classifier.Run]; captures and
// evaluations call [Classifier.Probabilities] and decide on what it returns. Both ways
// give a flow the same verdicts.
package classifier
