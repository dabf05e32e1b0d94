# SPDX-License-Identifier: Apache-2.0
"""nDPI as a judge to compare the networks with."""

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

TCP, UDP = 6, 17
# nDPI's protocols as categories, after nDPI's own categories. Collaboration (Teams, Discord, Slack)
# counts as chat, and what carries media as voip. A protocol is written MASTER.APPLICATION: a master
# in MEDIA decides, otherwise the application, otherwise the master; what is on the web by either
# and nothing else is web. What is not here has no category.
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
    "vpn-tunnel": "OpenVPN WireGuard IPsec PPTP Tor CiscoVPN NordVPN Tailscale SoftEther",
    "game": "Steam Xbox Playstation Nintendo Starcraft WorldOfWarcraft Warcraft3 Dofus Fiesta "
    "Florensia GuildWars MapleStory Quake HalfLife2 Armagetron Battlefield CSGO AmongUs RiotGames",
    "remote": "SSH RDP VNC Telnet TeamViewer AnyDesk Citrix PcAnywhere XDMCP RSH",
    "background": "DNS MDNS LLMNR NetBIOS NTP DHCP DHCPV6 SNMP SSDP Syslog ICMP IGMP Radius LDAP "
    "Kerberos BJNP WSD TPLINK_SHP ApplePush WindowsUpdate Dropbox_LAN MQTT NetFlow sFlow BGP OCSP "
    "Memcached Modbus OPC-UA",
    "web": "TLS HTTP QUIC HTTP_Proxy HTTP_Connect Google GoogleServices Amazon AmazonAWS "
    "Cloudflare Microsoft Microsoft365 Azure Apple Yahoo Wikipedia LinkedIn Github Reddit "
    "Pinterest GoogleDocs GoogleMaps PlayStore AppleStore eBay Cybersec "
    "ADS_Analytic_Track MSN Akamai Yandex Baidu GoogleCloud DataSaver CNN Bloomberg "
    "Cloudfront Fastly DoH_DoT",
}
MEDIA = ("STUN", "RTP", "RTCP", "SIP")
CATEGORY = {name: category for category, names in NDPI.items() for name in names.split()}


def verdicts(work, flows):
    """{"nDPI VERSION": the category or '' of each flow}, empty if nDPI has not judged."""
    path = Path(work) / "ndpi.json"
    if not path.is_file():
        return {}
    stored = json.loads(path.read_text())
    seen = [stored["protocol"].get(str(f), "") for f in flows.tolist()]
    return {f"nDPI {stored['version']}": [category(s) for s in seen]}


def category(protocol):
    """nDPI's MASTER.APPLICATION as one of the categories, or ''."""
    master, *application = protocol.split(".")
    names = [master, *application] if master in MEDIA else [*application, master]
    return next((CATEGORY[n] for n in names if n in CATEGORY), "")


def ndpi(ds, rows, captures, work, log=print):
    """Runs ndpiReader over the captures below ``captures`` and writes WORK/ndpi.json.

    The file has nDPI's version and the protocol of each flow that nDPI saw, by flow number;
    ``rows`` has a row of each flow. Flows are matched by capture, protocol and ports; where several
    of a capture have the same, the longest one's answer is taken.
    """
    path = Path(work) / "ndpi.json"
    if path.is_file():
        return
    if not shutil.which("ndpiReader"):
        log("no ndpiReader, so no row of nDPI: install nDPI (Debian: libndpi-bin)")
        return
    told = subprocess.run(["ndpiReader", "-h"], capture_output=True, text=True, errors="replace")
    version = re.search(r"nDPI (\d[\w.-]*)", told.stdout + told.stderr).group(1)
    by_flow = {}
    protocol, ports = transport(ds, rows)
    judged = np.unique(ds.capture[rows])
    for number, i in enumerate(judged, 1):
        capture = Path(captures) / ds.captures[i]["path"]
        if not capture.is_file():
            raise data.DatasetError(f"{capture}: no such file")
        answers = _ndpi_reader(capture)
        for at in np.flatnonzero(ds.capture[rows] == i):
            answer = answers.get((int(protocol[at]), *sorted(ports[at].tolist())))
            if answer:
                by_flow[int(ds.flow[rows[at]])] = answer
        if number % 100 == 0 or number == len(judged):
            log(f"nDPI {version}: {number} of {len(judged)} captures, {len(by_flow)} flows")
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


def transport(ds, rows):
    """Transport protocols int [n] and ports int [n, 2] of rows."""
    packets, l4 = np.asarray(ds.packet[rows]), ds.l4_offset[rows].astype(np.int64)
    protocol = np.where(packets[:, 0] >> 4 == 6, packets[:, 6], packets[:, 9]).astype(np.int64)
    at = np.take_along_axis(packets, l4[:, None] + np.arange(4), 1).astype(np.int64)
    return protocol, at[:, ::2] * 256 + at[:, 1::2]
