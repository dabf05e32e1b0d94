// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

func TestAdvice(t *testing.T) {
	base := errors.New("the ring is full")
	inner := Advise(base, "read %s", "faster")
	outer := Advise(fmt.Errorf("attach: %w", inner), "try again")
	if outer.Error() != "attach: the ring is full" || !errors.Is(outer, base) {
		t.Errorf("%q: the advice is no part of the text, and the chain stays whole", outer)
	}
	if got := Advice(outer); !slices.Equal(got, []string{"try again", "read faster"}) {
		t.Errorf("advice %q", got)
	}
	joined := errors.Join(New("a", "wait"), New("b", "wait"), base)
	if got := Advice(joined); !slices.Equal(got, []string{"wait"}) {
		t.Errorf("advice of a joined error: %q", got)
	}
	if Advise(nil, "nothing") != nil || Advice(nil) != nil || Advice(base) != nil {
		t.Error("advice, although the error has none")
	}
}
