// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
)

var _ = register(&Program{Name: "minetest", Category: "game", App: "minetest", Clients: 2, Version: "minetest --version",
	Needs: []Need{{"minetest", "minetest"}, {"minetestserver", "minetest-server"}, {"Xvfb", "xvfb"}, {"xdotool", "xdotool"},
		{"/usr/lib/*/dri/swrast_dri.so", "libgl1-mesa-dri"}}, Start: startMinetest})

// explorer plays with random keys and moves of the mouse. $1 is the time to play in seconds, the rest the client's
// command. Return answers the question that the client asks new players.
const explorer = xServer + `export SDL_AUDIODRIVER=dummy LIBGL_ALWAYS_SOFTWARE=1
end=$(($(date +%s) + $1)); shift
"$@" > game.log 2>&1 &
game=$!
while [ "$(date +%s)" -lt "$end" ]; do
	kill -0 $game || { tail game.log; exit 1; }
	xdotool key Return; sleep 2
done
kill $game; wait $game; exit 0`

// startMinetest: players explore a world that the server sends them, dig and build.
func startMinetest(ctx context.Context, r *Round) (Session, error) {
	s, port := r.Server(), r.Port()
	conf, err := s.Write("minetest.conf", fmt.Sprintf("ipv6_server = true\nserver_announce = false\nmg_name = %s\nfixed_map_seed = %d\nenable_damage = false\ncreative_mode = true\nmax_block_send_distance = %d\n",
		pick(r.draw, "v7", "flat", "valleys"), r.Uint32(), 3+r.IntN(6)))
	if err != nil {
		return nil, err
	}
	p, err := s.Start(ctx, "minetestserver", "--gameid", "minetest", "--world", s.Dir+"/world", "--config", conf, "--port", fmt.Sprint(port), "--logfile", "")
	if err != nil {
		return nil, err
	}
	if err := s.WaitUDP(ctx, p, port); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		conf, err := c.Write("minetest.conf", "screen_w = 320\nscreen_h = 240\nfps_max = 10\nviewing_range = 40\nenable_sound = false\nenable_shaders = false\nenable_clouds = false\nsmooth_lighting = false\nsound_volume = 0\nenable_client_modding = false\n")
		if err != nil {
			return err
		}
		_, err = c.Run(ctx, "sh", "-c", explorer, "sh", fmt.Sprintf("%.0f", c.Between(15, 60)), "minetest", "--go", "--address", c.Server().String(), "--port", fmt.Sprint(port),
			"--name", pick(c.draw, "ann", "bob", "eve")+fmt.Sprint(c.Uint32()), "--password", "", "--config", conf, "--random-input", "--logfile", "")
		return err
	}, nil
}
