// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/dpclass/dpclass/lab"
)

var _ = register(&Program{Name: "webrtc", Category: "voip", App: "webrtc", Clients: 1, Version: "chromium --version",
	Needs: []Need{{"chromium", "chromium"}}, Start: startWebRTC})

// meeting is the page of both ends of a call. They find each other through the site: POST
// leaves a message for the other end, GET waits for one. RELAY is the RTCConfiguration of
// the end that calls.
const meeting = `<!doctype html><title>meeting</title><script>
const me = location.hash.slice(1), other = me == 'a' ? 'b' : 'a', video = location.search == '?video';
const say = message => fetch('/' + other, {method: 'POST', body: JSON.stringify(message)});
const hear = async () => { for (;;) { const r = await fetch('/' + me); if (r.status == 200) return r.json(); } };
const gathered = c => new Promise(r => { c.onicegatheringstatechange = () => c.iceGatheringState == 'complete' && r();
	setTimeout(r, 5000); });
(async () => {
	const media = await navigator.mediaDevices.getUserMedia({audio: true, video: video && {width: 320, height: 240, frameRate: 15}});
	for (;;) {
		const call = new RTCPeerConnection(me == 'a' ? RELAY : {});
		media.getTracks().forEach(t => call.addTrack(t, media));
		call.onconnectionstatechange = () => me == 'a' && call.connectionState == 'failed' && fetch('/failed', {method: 'POST', body: 'no connection'});
		call.ontrack = () => fetch('/connected', {method: 'POST'});
		if (me == 'a') {
			await call.setLocalDescription(await call.createOffer());
			await gathered(call);
			await say(call.localDescription);
			await call.setRemoteDescription(await hear());
			return;
		}
		await call.setRemoteDescription(await hear());
		await call.setLocalDescription(await call.createAnswer());
		await gathered(call);
		await say(call.localDescription);
	}
})().catch(e => fetch('/failed', {method: 'POST', body: '' + e}));
</script>`

// mailboxes is the site that serves the page and passes messages on.
type mailboxes struct {
	page   string
	mu     sync.Mutex
	boxes  map[string]chan []byte
	failed string // what a page has reported
}

func (m *mailboxes) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if request.URL.Path == "/meet" {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, m.page)
		return
	}
	m.mu.Lock()
	box := m.boxes[request.URL.Path]
	if box == nil {
		box = make(chan []byte, 10)
		m.boxes[request.URL.Path] = box
	}
	m.mu.Unlock()
	if request.Method == http.MethodPost {
		message, _ := io.ReadAll(request.Body)
		if request.URL.Path == "/failed" {
			m.mu.Lock()
			m.failed = string(message)
			m.mu.Unlock()
		}
		select {
		case box <- message:
		default: // nobody listens
		}
		w.WriteHeader(http.StatusNoContent)
		return
	}
	select {
	case message := <-box:
		_, _ = w.Write(message)
	case <-time.After(20 * time.Second):
		w.WriteHeader(http.StatusNoContent)
	case <-request.Context().Done():
	}
}

// startWebRTC: two browsers call each other, with sound or with video too, as the pages of
// meeting services let them. The page that waits for calls is on the server's host.
func startWebRTC(ctx context.Context, r *Round) (Session, error) { return r.meeting(ctx, "{}") }

// meeting starts the site and the page that waits for calls. relay is the configuration of
// the end that calls.
func (r *Round) meeting(ctx context.Context, relay string) (Session, error) {
	site := &mailboxes{page: strings.Replace(meeting, "RELAY", relay, 1), boxes: map[string]chan []byte{}}
	url, err := r.HTTPS(ctx, site)
	if err != nil {
		return nil, err
	}
	s := r.Server()
	page := url + "/meet" + pick(r.draw, "", "?video")
	browse := func(ctx context.Context, n *Node, d draw, end string) (*lab.Process, error) {
		command := append(chromium(n, d.Uint32(), page+end), "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
			"--disable-features=WebRtcHideLocalIpsWithMdns")
		return n.Start(ctx, command[0], command[1:]...)
	}
	if _, err := browse(ctx, s, r.draw, "#b"); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		p, err := browse(ctx, c.Node, c.draw, "#a")
		if err != nil {
			return err
		}
		defer p.Stop() // browsers do not end by themselves
		_ = wait(ctx, time.Duration(c.Between(15, 60)*float64(time.Second)))
		site.mu.Lock()
		defer site.mu.Unlock()
		if site.failed != "" {
			return fmt.Errorf("the page: %s; chromium: %s", site.failed, p.Output())
		}
		return nil
	}, nil
}
