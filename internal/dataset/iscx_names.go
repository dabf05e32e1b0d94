// SPDX-License-Identifier: Apache-2.0

package dataset

import "strings"

// iscxGroup is a group of captures with the same labels.
type iscxGroup struct {
	category, app string
	names         string // separated by spaces, without extensions
}

// iscxGroups labels the captures of UNB ISCX VPN-nonVPN 2016 by their file names. The
// release has 150 captures: 110 outside a VPN, 9 of Tor, 31 inside a VPN. Its authors
// publish no list of labels. Some names leave a choice:
//
//   - gmailchat is chat, as the name and the packets say. Some lists call it email.
//   - The *_video calls are streaming, as in all lists that we know, although they have
//     more in common with voip.
//   - The tor files show a Tor circuit from outside. That is an application but none of
//     the categories.
//   - No listing that we know has scpUp4 and hangouts_video1a. They are here because a
//     series would lack them otherwise.
//
// The vpn_ files contain the packets inside the tunnel.
var iscxGroups = []iscxGroup{
	{"chat", "aim", "AIMchat1 AIMchat2 aim_chat_3a aim_chat_3b"},
	{"chat", "facebook", "facebookchat1 facebookchat2 facebookchat3 facebook_chat_4a facebook_chat_4b"},
	{"chat", "gmail", "gmailchat1 gmailchat2 gmailchat3"},
	{"chat", "hangouts", "hangouts_chat_4a hangout_chat_4b"},
	{"chat", "icq", "ICQchat1 ICQchat2 icq_chat_3a icq_chat_3b"},
	{"chat", "skype", "skype_chat1a skype_chat1b"},
	{"email", "email", "email1a email1b email2a email2b"},
	{"file-transfer", "ftps", "ftps_down_1a ftps_down_1b ftps_up_2a ftps_up_2b"},
	{"file-transfer", "scp", "scp1 scpDown1 scpDown2 scpDown3 scpDown4 scpDown5 scpDown6 scpUp1 scpUp2 scpUp3 scpUp4 " +
		"scpUp5 scpUp6"},
	{"file-transfer", "sftp", "sftp1 sftpDown1 sftpDown2 sftpUp1 sftp_down_3a sftp_down_3b sftp_up_2a sftp_up_2b"},
	{"file-transfer", "skype", "skype_file1 skype_file2 skype_file3 skype_file4 skype_file5 skype_file6 skype_file7 " +
		"skype_file8"},
	{"streaming", "facebook", "facebook_video1a facebook_video1b facebook_video2a facebook_video2b"},
	{"streaming", "hangouts", "hangouts_video1a hangouts_video1b hangouts_video2a hangouts_video2b"},
	{"streaming", "netflix", "netflix1 netflix2 netflix3 netflix4"},
	{"streaming", "skype", "skype_video1a skype_video1b skype_video2a skype_video2b"},
	{"streaming", "spotify", "spotify1 spotify2 spotify3 spotify4"},
	{"streaming", "vimeo", "vimeo1 vimeo2 vimeo3 vimeo4"},
	{"streaming", "youtube", "youtube1 youtube2 youtube3 youtube4 youtube5 youtube6 youtubeHTML5_1"},
	{"torrent", "torrent", "Torrent01"},
	{"voip", "facebook", "facebook_audio1a facebook_audio1b facebook_audio2a facebook_audio2b facebook_audio3 " +
		"facebook_audio4"},
	{"voip", "hangouts", "hangouts_audio1a hangouts_audio1b hangouts_audio2a hangouts_audio2b hangouts_audio3 " +
		"hangouts_audio4"},
	{"voip", "skype", "skype_audio1a skype_audio1b skype_audio2a skype_audio2b skype_audio3 skype_audio4"},
	{"voip", "voipbuster", "voipbuster1b voipbuster2b voipbuster3b voipbuster_4a voipbuster_4b"},
	{"", "tor", "torFacebook torGoogle torTwitter torVimeo1 torVimeo2 torVimeo3 torYoutube1 torYoutube2 " +
		"torYoutube3"},
	{"vpn-chat", "aim", "vpn_aim_chat1a vpn_aim_chat1b"},
	{"vpn-chat", "facebook", "vpn_facebook_chat1a vpn_facebook_chat1b"},
	{"vpn-chat", "hangouts", "vpn_hangouts_chat1a vpn_hangouts_chat1b"},
	{"vpn-chat", "icq", "vpn_icq_chat1a vpn_icq_chat1b"},
	{"vpn-chat", "skype", "vpn_skype_chat1a vpn_skype_chat1b"},
	{"vpn-email", "email", "vpn_email2a vpn_email2b"},
	{"vpn-file-transfer", "ftps", "vpn_ftps_A vpn_ftps_B"},
	{"vpn-file-transfer", "sftp", "vpn_sftp_A vpn_sftp_B"},
	{"vpn-file-transfer", "skype", "vpn_skype_files1a vpn_skype_files1b"},
	{"vpn-streaming", "netflix", "vpn_netflix_A"},
	{"vpn-streaming", "spotify", "vpn_spotify_A"},
	{"vpn-streaming", "vimeo", "vpn_vimeo_A vpn_vimeo_B"},
	{"vpn-streaming", "youtube", "vpn_youtube_A"},
	{"vpn-torrent", "torrent", "vpn_bittorrent"},
	{"vpn-voip", "facebook", "vpn_facebook_audio2"},
	{"vpn-voip", "hangouts", "vpn_hangouts_audio1 vpn_hangouts_audio2"},
	{"vpn-voip", "skype", "vpn_skype_audio1 vpn_skype_audio2"},
	{"vpn-voip", "voipbuster", "vpn_voipbuster1a vpn_voipbuster1b"},
}

// iscxLabels returns the labels of a capture, given its file name without extensions.
func iscxLabels(name string) (c Capture, known bool) {
	for _, group := range iscxGroups {
		for _, one := range strings.Fields(group.names) {
			if strings.EqualFold(one, name) {
				return Capture{
					Name: one, Set: "iscx", Category: group.category, App: group.app,
					VPN: strings.HasPrefix(one, "vpn_"), Use: useTrain,
				}, true
			}
		}
	}
	return Capture{}, false
}
