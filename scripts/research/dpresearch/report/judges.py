# SPDX-License-Identifier: Apache-2.0
"""Judges that learn nothing, to compare the networks with: a rule of two lines, and nDPI."""

import collections
import csv
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from dptrain import data

from ..paper import nets

TCP, UDP = 6, 17
# nDPI's protocols as the six categories, after nDPI's own categories. Collaboration (Teams,
# Discord, Slack) counts as chat, and what carries media as voip. A protocol is written
# MASTER.APPLICATION: a master in MEDIA decides, otherwise the application, otherwise the master.
# What is not here (web, cloud, network, unknown) has no category.
NDPI = {
    "chat": "Signal QQ IRC Jabber WhatsApp Messenger Telegram KakaoTalk WeChat Discord Slack Teams "
    "Facebook Twitter GooglePlus Instagram Snapchat Viber",
    "email": "POP3 SMTP IMAP POPS SMTPS IMAPS Hotmail GMail LotusNotes",
    "file-transfer": "FTP_CONTROL FTP_DATA NFS TFTP AFP RSYNC SMBv1 SMBv23 Dropbox UbuntuONE "
    "GoogleDrive MS_OneDrive WhatsAppFiles AppleiCloud",
    "streaming": "YouTube NetFlix Spotify Vimeo Hulu DisneyPlus AmazonVideo Twitch Deezer "
    "SoundCloud LastFM Pandora Vevo AppleiTunes RTSP RTMP IceCast ShoutCast Zattoo PPStream QQLive "
    "MPEG_TS IFLIX TikTok",
    "torrent": "BitTorrent eDonkey Gnutella",
    "voip": "STUN RTP RTCP SIP H323 MGCP Megaco IAX SkypeCall Skype_Teams WhatsAppCall Webex Zoom "
    "TeamSpeak GoogleHangoutDuo KakaoTalk_Voice IMO FacebookVoip SignalVoip SnapchatCall Fuze "
    "CiscoSkinny NOE TruPhone Tuenti",
}
MEDIA = ("STUN", "RTP", "RTCP", "SIP")
CATEGORY = {name: category for category, names in NDPI.items() for name in names.split()}


def verdicts(ds, work, flows, rows):
    """{judge: the category or '' of each flow}; ``rows`` has a row of each flow."""
    out = {"two lines": two_lines(ds, rows).tolist()}
    path = Path(work) / "elsewhere" / "ndpi.json"
    if path.is_file():
        stored = json.loads(path.read_text())
        seen = [stored["protocol"].get(str(f), "") for f in flows.tolist()]
        out[f"nDPI {stored['version']}"] = [category(s) for s in seen]
    return out


def two_lines(ds, rows):
    """The categories of rows by a rule: UDP, not port 443, is voip; the rest is chat."""
    protocol, ports = _transport(ds, rows)
    voip = (protocol == UDP) & ~(ports == 443).any(1)
    return np.where(voip, "voip", "chat").astype(object)


def category(protocol):
    """nDPI's MASTER.APPLICATION as one of the six categories, or ''."""
    master, *application = protocol.split(".")
    names = [master, *application] if master in MEDIA else [*application, master]
    return next((CATEGORY[n] for n in names if n in CATEGORY), "")


def ndpi(ds, captures, work, log=print):
    """Runs ndpiReader over the captures below ``captures`` and writes WORK/elsewhere/ndpi.json.

    The file has nDPI's version and the protocol of each flow of the dataset outside a VPN that
    nDPI saw, by flow number. Flows are matched by capture, protocol and ports; where several of a
    capture have the same, the longest one's answer is taken. Sets that nDPI labelled are left out.
    """
    if not shutil.which("ndpiReader"):
        raise data.DatasetError("no ndpiReader: install nDPI (Debian: libndpi-bin)")
    told = subprocess.run(["ndpiReader", "-h"], capture_output=True, text=True, errors="replace")
    version = re.search(r"nDPI (\d[\w.-]*)", told.stdout + told.stderr).group(1)
    by_flow = {}
    first = np.unique(ds.flow, return_index=True)[1]
    protocol, ports = _transport(ds, first)
    judged = [
        i
        for i, c in enumerate(ds.captures)
        if (c["use"] == "evaluate" or c["set"] == nets.SET) and not c["category"].startswith("vpn-")
    ]
    for number, i in enumerate(judged, 1):
        path = Path(captures) / ds.captures[i]["path"]
        if not path.is_file():
            raise data.DatasetError(f"{path}: no such file")
        answers = _ndpi_reader(path)
        for at in np.flatnonzero(ds.capture[first] == i):
            answer = answers.get((int(protocol[at]), *sorted(ports[at].tolist())))
            if answer:
                by_flow[int(ds.flow[first[at]])] = answer
        if number % 50 == 0 or number == len(judged):
            log(f"nDPI {version}: {number} of {len(judged)} captures, {len(by_flow)} flows")
    path = Path(work) / "elsewhere" / "ndpi.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": version, "protocol": by_flow}) + "\n")


def _ndpi_reader(path):
    """nDPI's protocol by (transport protocol, lower port, higher port) of a capture."""
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "flows.csv"
        command = ["ndpiReader", "-q", "-t", "-i", str(path), "-C", str(table)]
        subprocess.run(command, capture_output=True, check=True)
        lines = list(csv.DictReader(table.read_text(errors="replace").splitlines()))
    packets = collections.Counter()
    for line in lines:
        ports = sorted((int(line["src_port"]), int(line["dst_port"])))
        key = (int(line["protocol"]), *ports)
        packets[key, line["ndpi_proto"]] += int(line["c_to_s_pkts"]) + int(line["s_to_c_pkts"])
    return {key: name for (key, name), _ in reversed(packets.most_common())}


def _transport(ds, rows):
    """Transport protocols int [n] and ports int [n, 2] of rows."""
    packets, l4 = np.asarray(ds.packet[rows]), ds.l4_offset[rows].astype(np.int64)
    protocol = np.where(packets[:, 0] >> 4 == 6, packets[:, 6], packets[:, 9]).astype(np.int64)
    at = np.take_along_axis(packets, l4[:, None] + np.arange(4), 1).astype(np.int64)
    return protocol, at[:, ::2] * 256 + at[:, 1::2]
