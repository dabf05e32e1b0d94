// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// TestRoom checks that a chat passes everything on to the others, and texts to those who
// come later.
func TestRoom(t *testing.T) {
	m := &room{page: "<p>page", people: map[*websocket.Conn]bool{}, mode: websocket.CompressionContextTakeover}
	server := httptest.NewServer(m)
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	join := func() *websocket.Conn {
		t.Helper()
		before := m.count()
		conn, _, err := websocket.Dial(ctx, server.URL+"/room", nil) //nolint:bodyclose // it is the connection
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.CloseNow() })
		for m.count() == before && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		return conn
	}
	send := func(conn *websocket.Conn, kind websocket.MessageType, text string) {
		t.Helper()
		if err := conn.Write(ctx, kind, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	want := func(conn *websocket.Conn, kind websocket.MessageType, text string) {
		t.Helper()
		got, data, err := conn.Read(ctx)
		if err != nil || got != kind || string(data) != text {
			t.Errorf("got %v %q, %v; want %v %q", got, data, err, kind, text)
		}
	}
	typing, text := `{"kind":"typing","from":"a"}`, `{"kind":"text","from":"a","text":"hello"}`
	a, b := join(), join()
	send(a, websocket.MessageText, typing)
	want(b, websocket.MessageText, typing)
	send(a, websocket.MessageText, text)
	want(b, websocket.MessageText, text)
	send(b, websocket.MessageBinary, "picture")
	want(a, websocket.MessageBinary, "picture") // and not its own messages
	late := join()
	want(late, websocket.MessageText, text)
	send(late, websocket.MessageText, "no JSON")
	if _, _, err := late.Read(ctx); websocket.CloseStatus(err) != websocket.StatusInvalidFramePayloadData {
		t.Errorf("after a message that is none: %v", err)
	}
}

func (m *room) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.people)
}
