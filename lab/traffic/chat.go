// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

var _ = register(
	&Program{Name: "xmpp", Category: "chat", App: "jabber", Quick: true, Clients: 8, Version: "prosodyctl about",
		Needs: []Need{{"prosody", "prosody"}, {"/usr/bin/python3", "python3"}, {"/usr/lib/python3/dist-packages/slixmpp", "python3-slixmpp"}}, Start: startXMPP},
	&Program{Name: "weechat", Category: "chat", App: "irc", Clients: 8, Version: "weechat-headless --version",
		Needs: []Need{{"ngircd", "ngircd"}, {"weechat-headless", "weechat-headless"}, {"/usr/lib/*/weechat/plugins/fifo.so", "weechat-plugins"}}, Start: startIRC},
)

// xmppClient is a person who chats: it logs in, types, sends, and reads what comes.
const xmppClient = `
import asyncio, inspect, random, sys, slixmpp
name, port, user, password, ca, seconds, pause, seed, peers = sys.argv[1:10]
random.seed(seed)

class Person(slixmpp.ClientXMPP):
    def __init__(self):
        super().__init__(user + '@' + name, password)
        for plugin in 'xep_0030', 'xep_0085', 'xep_0199', 'xep_0184':
            self.register_plugin(plugin)
        self.add_event_handler('session_start', self.session)

    async def _pick_dns_answer(self, *_):
        return None  # it would look for an SRV record, and take port 5222 without one

    async def session(self, _):
        self.send_presence()
        await self.get_roster()
        loop = asyncio.get_event_loop()
        end = loop.time() + float(seconds)
        while loop.time() < end:
            to = random.choice(peers.split(',')) + '@' + name
            typing = self.make_message(mto=to, mtype='chat'); typing['chat_state'] = 'composing'; typing.send()
            text = ' '.join(random.choice(WORDS) for _ in range(int(random.lognormvariate(2, 1)) + 1))
            await asyncio.sleep(float(pause) * (.2 + random.expovariate(1)) + len(text) * .01)
            self.send_message(mto=to, mbody=text, mtype='chat')
            if random.random() < .1:
                self.send_presence(pshow=random.choice(['away', 'chat', 'dnd']), pstatus=text)
        print('done', flush=True)
        self.disconnect()

WORDS = ['and', 'the', 'but', 'meeting', 'lunch', 'yes', 'no', 'maybe', 'tomorrow', 'https://lab.example/picture', ':-)', 'see', 'you', 'late', 'again', 'report']
person = Person()
person.ca_certs = ca
if 'address' in inspect.signature(person.connect).parameters:  # before slixmpp 1.9
    person.connect((name, int(port)))
else:
    person.connect(name, int(port))
asyncio.get_event_loop().run_until_complete(person.disconnected)
`

// startXMPP: people with accounts on one server write to each other.
func startXMPP(ctx context.Context, r *Round) (Session, error) {
	cert, ca, err := r.Certificate()
	if err != nil {
		return nil, err
	}
	s, port := r.Server(), r.Port()
	conf, err := s.Write("prosody.cfg.lua", fmt.Sprintf(`daemonize = false
run_as_root = true
pidfile = "%[1]s/pid"
data_path = "%[1]s/data"
log = { info = "*console" }
interfaces = { "*", "::" }
c2s_ports = { %[2]d }
modules_enabled = { "roster", "saslauth", "tls", "disco", "ping", "carbons", "time", "version" }
modules_disabled = { "s2s" }
c2s_require_encryption = true
authentication = "internal_plain"
ssl = { key = "%[3]s", certificate = "%[4]s" }
VirtualHost "%[5]s"
`, s.Dir, port, cert.Key, cert.Cert, s.Name))
	if err != nil {
		return nil, err
	}
	const password = "correct-horse"
	var users []string
	for i := range r.Clients {
		users = append(users, fmt.Sprintf("user%d", i))
		// Prosody escapes host names in paths.
		host := strings.NewReplacer(".", "%2e", "-", "%2d").Replace(s.Name)
		if _, err := s.Write(fmt.Sprintf("data/%s/accounts/%s.dat", host, users[i]), fmt.Sprintf("return { [\"password\"] = %q; };\n", password)); err != nil {
			return nil, err
		}
	}
	script, err := s.Write("person.py", xmppClient)
	if err != nil {
		return nil, err
	}
	p, err := s.Start(ctx, "prosody", "--config", conf)
	if err != nil {
		return nil, err
	}
	if err := s.WaitTCP(ctx, p, port); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		seconds, pause := min(c.Between(3, 25), c.Left().Seconds()-1), 2.
		if c.Round.Quick {
			seconds, pause = min(3, c.Left().Seconds()-1), .3
		}
		out, err := c.Run(ctx, "/usr/bin/python3", script, s.Name, fmt.Sprint(port), users[c.Number], password, ca,
			fmt.Sprintf("%.1f", seconds), fmt.Sprint(pause), fmt.Sprint(c.Uint32()), strings.Join(users, ","))
		if err == nil && !strings.Contains(out, "done") {
			err = fmt.Errorf("the XMPP client ended before it was done: %s; prosody: %s", out, p.Output())
		}
		return err
	}, nil
}

// startIRC: people on one channel of an IRC server, over TLS.
func startIRC(ctx context.Context, r *Round) (Session, error) {
	cert, ca, err := r.Certificate()
	if err != nil {
		return nil, err
	}
	s, port := r.Server(), r.Port()
	conf, err := s.Write("ngircd.conf", fmt.Sprintf(`[Global]
Name = %[1]s
Info = lab
Listen = ::,0.0.0.0
Ports =
[Limits]
MaxConnectionsIP = 0
PingTimeout = 20
[Options]
DNS = no
Ident = no
PAM = no
MorePrivacy = yes
[SSL]
CertFile = %[2]s
KeyFile = %[3]s
Ports = %[4]d
`, s.Name, cert.Cert, cert.Key, port))
	if err != nil {
		return nil, err
	}
	p, err := s.Start(ctx, "ngircd", "--nodaemon", "--config", conf)
	if err != nil {
		return nil, err
	}
	if err := s.WaitTCP(ctx, p, port); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		dir := filepath.Join(c.Dir, fmt.Sprintf("weechat%d", c.Uint32()))
		client, err := c.Start(ctx, "weechat-headless", "--dir", dir, "--stdout", "--run-command",
			fmt.Sprintf("/set weechat.network.gnutls_ca_user %s;/server add lab %s/%d -ssl -nicks=user%d -autoconnect;/set irc.server.lab.ssl_verify on;"+
				"/set irc.server.lab.autojoin #lab;/connect lab", ca, s.Name, port, c.Number))
		if err != nil {
			return err
		}
		// WeeChat reads commands from a pipe.
		var pipe string
		for pipe == "" {
			if found, _ := filepath.Glob(dir + "/weechat_fifo_*"); len(found) > 0 {
				pipe = found[0]
			} else if err := wait(ctx, 100*time.Millisecond); err != nil {
				return err
			}
		}
		if err := c.Think(ctx, 4*time.Second); err != nil {
			return err
		}
		for range 2 + c.IntN(9) {
			line := "irc.server.lab */msg #lab " + c.Text(c.Size(5, 200)) + "\n"
			if err := appendTo(pipe, line); err != nil {
				return fmt.Errorf("weechat: %w: %s", err, client.Output())
			}
			if err := c.Think(ctx, 2*time.Second); err != nil {
				return err
			}
		}
		if err := appendTo(pipe, "core.weechat */quit\n"); err != nil {
			return fmt.Errorf("weechat: %w: %s", err, client.Output())
		}
		return client.Wait()
	}, nil
}

// appendTo writes to a file or pipe that exists.
func appendTo(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	return err
}
