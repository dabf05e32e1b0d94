// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
)

var _ = register(
	// The client draws with the CPU, so one is enough.
	&Program{Name: "teeworlds", Category: "game", App: "teeworlds", Quick: true, Clients: 1,
		Needs: []Need{{"teeworlds", "teeworlds"}, {"teeworlds-server", "teeworlds-server"}, {"Xvfb", "xvfb"}, {"xdotool", "xdotool"},
			{"/usr/lib/*/dri/swrast_dri.so", "libgl1-mesa-dri"}}, Start: startTeeworlds},
)

// xServer starts an X server without a screen, for the rest of the script. Nobody else
// sees it: /tmp is the program's own.
const xServer = `Xvfb :1 -screen 0 640x480x24 -nolisten tcp > xvfb.log 2>&1 &
until [ -S /tmp/.X11-unix/X1 ]; do sleep .1; done
export DISPLAY=:1
`

// player plays as somebody does who runs, jumps and shoots all the time. $1 is the address
// of the server, $2 the time to play in seconds.
const player = xServer + `export SDL_AUDIODRIVER=dummy
teeworlds "gfx_screen_width 320;gfx_screen_height 240;gfx_fullscreen 0;gfx_vsync 0;gfx_limitfps 1;gfx_maxfps 12;snd_enable 0;player_name ann;connect $1" > game.log 2>&1 &
game=$!
sleep 2
end=$(($(date +%s) + $2)); i=$$
while [ "$(date +%s)" -lt "$end" ]; do
	kill -0 $game || { cat game.log; exit 1; }
	i=$(((i * 1103 + 12345) % 65536))
	case $((i % 2)) in 0) key=a ;; 1) key=d ;; esac
	xdotool keydown $key mousemove $((i % 320)) $((i / 7 % 240)); sleep .$((1 + i % 5))
	[ $((i % 3)) = 0 ] || xdotool key space
	[ $((i % 5)) = 0 ] || xdotool click 1
	sleep .$((1 + i / 3 % 4)); xdotool keyup $key
done
kill $game; wait $game; exit 0`

// startTeeworlds: players join a server, play for a while and leave.
func startTeeworlds(ctx context.Context, r *Round) (Session, error) {
	s, port := r.Server(), r.Port()
	p, err := s.Start(ctx, "teeworlds-server", fmt.Sprintf("sv_port %d;sv_register 0;sv_map %s;sv_name %s", port, pick(r.draw, "dm1", "dm2", "dm6"), s.Name))
	if err != nil {
		return nil, err
	}
	if err := s.WaitUDP(ctx, p, port); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		seconds, address := c.Between(8, 40), fmt.Sprintf("%s:%d", c.Server(), port)
		if c.six {
			address = fmt.Sprintf("[%s]:%d", c.Server(), port)
		}
		if c.Round.Quick {
			seconds = 5
		}
		_, err := c.Run(ctx, "sh", "-c", player, "sh", address, fmt.Sprintf("%.0f", seconds))
		return err
	}, nil
}
