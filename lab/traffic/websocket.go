// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

var _ = register(&Program{Name: "chromium-chat", Category: "chat", App: "websocket", Clients: 2, Version: "chromium --version",
	Needs: []Need{{"chromium", "chromium"}}, Start: startChromiumChat})

// chatPage is the page of a chat. Whoever sits at it types messages, which the others see
// being typed, and sends a picture now and then.
const chatPage = `<!doctype html><title>chat</title><main></main><script>
const socket = new WebSocket('wss://' + location.host + '/room'), main = document.querySelector('main');
const sleep = seconds => new Promise(r => setTimeout(r, seconds*1000));
const say = (kind, text) => socket.send(JSON.stringify({kind, from: location.hash.slice(1), text, id: crypto.randomUUID(), at: Date.now()}));
const words = n => Array.from({length: n}, () => Math.random().toString(36).slice(2, 3 + 9*Math.random()));
socket.onmessage = async ({data}) => {
	const line = document.createElement('p'), message = typeof data == 'string' ? JSON.parse(data) : {kind: 'picture', text: data.size};
	if (message.kind == 'typing' || message.kind == 'seen') return;
	line.textContent = message.from + ': ' + message.text;
	main.append(line);
	await sleep(.2 + 2*Math.random());
	if (Math.random() < .8) say('seen', message.id);
};
socket.onclose = e => console.error('FAILED the server has closed: ' + e.code + ' ' + e.reason);
socket.onopen = async () => {
	setInterval(() => say('ping', ''), 15000);
	for (;;) {
		await sleep(THINK*(.2 + 2.5*Math.random()));
		if (Math.random() < .1) {
			const picture = new Uint8Array(Math.exp(9 + 4*Math.random()));
			for (let i = 0; i < picture.length; i += 65536) crypto.getRandomValues(picture.subarray(i, i + 65536));
			socket.send(picture);
			continue;
		}
		const text = words(1 + Math.exp(3*Math.random()));
		for (let i = 0; i < text.length; i += 6) { say('typing', ''); await sleep(Math.min(6, text.length - i)*THINK*.06); }
		say('text', text.join(' '));
	}
};
</script>`

// room passes messages on to all others who are there.
type room struct {
	page string
	mode websocket.CompressionMode

	mu     sync.Mutex
	people map[*websocket.Conn]bool
	past   [][]byte // the last texts, which new people get
}

// message is what a page sends, but for pictures.
type message struct {
	Kind string `json:"kind"` // text, typing, seen, ping
	From string `json:"from"`
	Text string `json:"text"`
	ID   string `json:"id"`
	At   int64  `json:"at"` // ms since 1970
}

func (m *room) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if request.URL.Path != "/room" {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, m.page)
		return
	}
	conn, err := websocket.Accept(w, request, &websocket.AcceptOptions{CompressionMode: m.mode})
	if err != nil {
		return // Accept has answered
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(1 << 20)
	m.mu.Lock()
	m.people[conn] = true
	past := m.past
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.people, conn)
		m.mu.Unlock()
	}()
	for _, text := range past {
		if conn.Write(request.Context(), websocket.MessageText, text) != nil {
			return
		}
	}
	for {
		kind, data, err := conn.Read(request.Context())
		if err != nil {
			return // the page is gone
		}
		var said message
		if kind == websocket.MessageText && json.Unmarshal(data, &said) != nil {
			_ = conn.Close(websocket.StatusInvalidFramePayloadData, "not a message")
			return
		}
		m.tell(request.Context(), conn, kind, said.Kind, data)
	}
}

// tell sends something to all but the one it is from.
func (m *room) tell(ctx context.Context, from *websocket.Conn, kind websocket.MessageType, what string, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if what == "text" {
		m.past = append(m.past[max(0, len(m.past)-30):len(m.past):len(m.past)], data)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for conn := range m.people {
		if conn != from {
			_ = conn.Write(ctx, kind, data) // its own reader notices that it is gone
		}
	}
}

// elsewhere is a person who chats from a place that no capture sees.
func (m *room) elsewhere(ctx context.Context, d draw, name string, quick bool) {
	pause := 9.
	if quick {
		pause = .7
	}
	for wait(ctx, time.Duration(d.Between(.3, 3)*pause*float64(time.Second))) == nil {
		if d.Chance(.08) {
			m.tell(ctx, nil, websocket.MessageBinary, "picture", d.picture(d.Size(8_000, 400_000)))
			continue
		}
		for _, kind := range []string{"typing", "text"} {
			said := message{Kind: kind, From: name, ID: fmt.Sprintf("%016x", d.Uint64()), At: time.Now().UnixMilli()}
			if kind == "text" {
				said.Text = d.Text(d.Size(3, 250))
			}
			data, err := json.Marshal(said)
			if err != nil {
				return // a message always has a form
			}
			m.tell(ctx, nil, websocket.MessageText, kind, data)
			if wait(ctx, time.Duration(d.Between(.1, 1)*pause*float64(time.Second))) != nil {
				return
			}
		}
	}
}

// startChromiumChat: people write to one another in a chat in their browsers.
func startChromiumChat(ctx context.Context, r *Round) (Session, error) {
	think := "4"
	if r.Quick {
		think = ".5"
	}
	m := &room{people: map[*websocket.Conn]bool{}, mode: pick(r.draw, websocket.CompressionDisabled, websocket.CompressionContextTakeover),
		page: strings.NewReplacer("THINK", think, "FAILED", failed).Replace(chatPage)}
	url, err := r.HTTPS(ctx, m)
	if err != nil {
		return nil, err
	}
	for n := range 1 + r.IntN(2) {
		go m.elsewhere(ctx, draw{newDraw(r.Uint64(), "elsewhere").Rand}, fmt.Sprintf("friend%d", n), r.Quick)
	}
	return func(ctx context.Context, c *Client) error {
		return visit(ctx, c, 15, 70, chromium(c.Node, c.Uint32(), fmt.Sprintf("%s/#user%d", url, c.Number))...)
	}, nil
}
