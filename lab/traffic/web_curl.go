// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"time"
)

var _ = register(&Program{Name: "curl", Category: "web", App: "web", Quick: true, Version: "curl --version",
	Needs: []Need{needNGINX, {"curl", "curl"}}, Start: startCurl})

// startCurl: a client reads some pages of a site, one after the other, each with all that
// it loads, in one connection or in several.
func startCurl(ctx context.Context, r *Round) (Session, error) {
	site, err := r.Site(ctx)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		for range 1 + c.IntN(4) {
			page := pick(c.draw, site.pages...)
			args := []string{"--parallel", "--parallel-max", pick(c.draw, "1", "6"), pick(c.draw, "--compressed", "--http1.1", "--http2")}
			for _, path := range append([]string{page.path}, page.assets...) {
				args = append(args, "--output", "/dev/null", site.URL+"/"+path)
			}
			if err := site.Curl(ctx, c, args...); err != nil {
				return err
			}
			if err := c.Think(ctx, 4*time.Second); err != nil {
				return err
			}
		}
		return nil
	}, nil
}
