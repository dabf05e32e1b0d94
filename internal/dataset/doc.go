// SPDX-License-Identifier: Apache-2.0

// Package dataset holds what training and evaluation need: the labels of captures (by
// manifest, by directory, or by the file names of the ISCX release), the flows of a
// capture file, the dataset directory that the trainer reads, and metrics.
package dataset
