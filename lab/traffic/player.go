// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"strings"
)

var _ = register(
	&Program{Name: "chromium-hls", Category: "streaming", App: "hls", Clients: 1, Version: "chromium --version", Needs: append([]Need{needNGINX}, playerNeeds...),
		Start: func(ctx context.Context, r *Round) (Session, error) {
			return r.player(ctx, (*Round).NGINX, "index.m3u8")
		}},
	&Program{Name: "chromium-dash", Category: "streaming", App: "mpegdash", Clients: 1, Version: "chromium --version", Needs: append([]Need{needNGINX}, playerNeeds...),
		Start: func(ctx context.Context, r *Round) (Session, error) {
			return r.player(ctx, (*Round).NGINX, "index.mpd")
		}},
	&Program{Name: "chromium-h3-hls", Category: "streaming", App: "hls", Clients: 1, Version: "chromium --version", Needs: playerNeeds,
		Start: func(ctx context.Context, r *Round) (Session, error) {
			return r.player(ctx, (*Round).HTTP3, "index.m3u8")
		}},
	&Program{Name: "chromium-h3-dash", Category: "streaming", App: "mpegdash", Clients: 1, Version: "chromium --version", Needs: playerNeeds,
		Start: func(ctx context.Context, r *Round) (Session, error) {
			return r.player(ctx, (*Round).HTTP3, "index.mpd")
		}},
)

var playerNeeds = []Need{{"chromium", "chromium"}, {"ffmpeg", "ffmpeg"}}

// player starts a web server with a video in segments and a page that plays it.
func (r *Round) player(ctx context.Context, serve func(*Round, context.Context) (*web, error), list string) (Session, error) {
	w, err := serve(r, ctx)
	if err != nil {
		return nil, err
	}
	options := []string{"-f", "hls", "-hls_time", fmt.Sprint(2 + r.IntN(5)), "-hls_list_size", "0", "-hls_playlist_type", "vod", "-hls_segment_type", "fmp4", list}
	if strings.HasSuffix(list, ".mpd") {
		// Two qualities: the player takes the one that the network can carry.
		options = []string{"-map", "0:v", "-map", "0:v", "-map", "1:a", "-b:v:1", fmt.Sprintf("%dk", r.Size(150, 600)),
			"-f", "dash", "-seg_duration", fmt.Sprint(2 + r.IntN(5)), "-adaptation_sets", "id=0,streams=v id=1,streams=a", list}
	}
	if err := r.film(ctx, w.Root, options...); err != nil {
		return nil, err
	}
	think := 15.
	if r.Quick {
		think = 2
	}
	page := strings.NewReplacer("LIST", list, "MOST", fmt.Sprint(20+r.IntN(11)), "THINK", fmt.Sprint(think), "FAILED", failed).Replace(playerPage)
	if err := w.write("watch.html", page); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error { return w.visit(ctx, c, 15, 70, "watch.html") }, nil
}

// playerPage plays segments by Media Source Extensions (W3C), as the players of video sites
// do: it fills a buffer, rests until a third of it is played, and fills it again. Whoever
// watches pauses or jumps now and then.
const playerPage = `<!doctype html><title>film</title><video autoplay muted></video><script>
const video = document.querySelector('video'), media = new MediaSource(), most = MOST;
const sleep = seconds => new Promise(r => setTimeout(r, seconds*1000));
const get = async url => { const r = await fetch(url); if (!r.ok) throw url + ': ' + r.status; return r; };

// A film has a length in seconds and tracks. A track has qualities: of each, the URL that
// begins it, and those of its segments with the times when they begin.
function hls(text) {
	const segments = [];
	let time = 0, length = 0;
	for (const line of text.split('\n')) {
		const info = line.match(/^#EXTINF:([\d.]+)/);
		if (info) length = +info[1];
		else if (line && line[0] != '#') { segments.push({url: line, time}); time += length; }
	}
	return {length: time, tracks: [{type: 'video/mp4; codecs="avc1.42c01e,mp4a.40.2"', qualities: [{rate: 0, init: text.match(/URI="(.*?)"/)[1], segments}]}]};
}
function dash(text) {
	const tracks = [];
	let length = 0;
	for (const set of new DOMParser().parseFromString(text, 'text/xml').querySelectorAll('AdaptationSet')) {
		const track = {qualities: []};
		for (const r of set.querySelectorAll('Representation')) {
			const template = r.querySelector('SegmentTemplate'), segments = [], scale = +template.getAttribute('timescale');
			const url = (name, n) => template.getAttribute(name).replace('$RepresentationID$', r.id).replace(/\$Number%0(\d)d\$/, (_, w) => ('' + n).padStart(+w, '0'));
			let time = 0, n = +template.getAttribute('startNumber');
			for (const s of template.querySelectorAll('S'))
				for (let i = 0; i <= +s.getAttribute('r'); i++, time += s.getAttribute('d')/scale) segments.push({url: url('media', n++), time});
			track.type = r.getAttribute('mimeType') + '; codecs="' + r.getAttribute('codecs') + '"';
			track.qualities.push({rate: +r.getAttribute('bandwidth'), init: url('initialization'), segments});
			length = Math.max(length, time);
		}
		track.qualities.sort((a, b) => a.rate - b.rate);
		tracks.push(track);
	}
	return {length, tracks};
}

async function feed(track) {
	const buffer = track.buffer, append = data => new Promise((r, fail) => { buffer.onupdateend = r; buffer.onerror = () => fail('append'); buffer.appendBuffer(data); });
	let next = 0, quality = 0, loaded = -1, filling = true;
	for (;;) {
		if (track.jump != null) {
			const {segments} = track.qualities[quality], to = track.jump;
			track.jump = null;
			next = Math.max(0, segments.findLastIndex(s => s.time <= to));
			await new Promise(r => { buffer.onupdateend = r; buffer.remove(0, Infinity); });
		}
		let ahead = 0;
		for (let i = 0; i < buffer.buffered.length; i++)
			if (buffer.buffered.start(i) <= video.currentTime + .5) ahead = buffer.buffered.end(i) - video.currentTime;
		filling = ahead < (filling ? most : most*2/3);
		if (!filling || next == track.qualities[quality].segments.length) { await sleep(.2); continue; }
		const q = track.qualities[quality];
		if (loaded != quality) await append(await (await get(q.init)).arrayBuffer());
		loaded = quality;
		const began = performance.now(), data = await (await get(q.segments[next++].url)).arrayBuffer();
		const speed = data.byteLength*8000/(performance.now() - began); // bit/s
		await append(data);
		quality = Math.max(0, track.qualities.findLastIndex(q => q.rate*1.5 < speed));
	}
}

(async () => {
	video.src = URL.createObjectURL(media);
	await new Promise(r => media.onsourceopen = r);
	const text = await (await get('LIST')).text(), film = text[0] == '#' ? hls(text) : dash(text);
	film.tracks.forEach(t => t.buffer = media.addSourceBuffer(t.type));
	const broken = e => console.error('FAILED' + e);
	video.onerror = () => broken(video.error.message);
	film.tracks.forEach(t => feed(t).catch(broken));
	const jump = to => { film.tracks.forEach(t => t.jump = to); video.currentTime = to; };
	setInterval(() => video.currentTime > film.length - .5 && jump(0), 300);
	for (;;) {
		await sleep(THINK*(.3 + 2*Math.random()));
		if (Math.random() < .5) { video.pause(); await sleep(THINK*.4*Math.random()); video.play().catch(() => {}); }
		else if (Math.random() < .5) jump(Math.random()*film.length*.8);
	}
})().catch(e => console.error('FAILED' + e));
</script>`
