"""SIP and SDP messages that tests parse, change and cut."""

from __future__ import annotations

OFFER = (
    b"v=0\r\no=alice 2890844526 2890844527 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
    b"m=audio 40012 RTP/AVP 8 0 18 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n"
    b"a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n"
)
WEBRTC = (
    b"v=0\r\no=- 46117317 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n"
    b"m=audio 54400 UDP/TLS/RTP/SAVPF 111 9 13\r\nc=IN IP4 198.51.100.7\r\na=rtcp:9 IN IP4 0.0.0.0\r\n"
    b"a=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=rtpmap:9 G722/8000\r\na=recvonly\r\n"
    b"m=video 0 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP6 2001:db8::9\r\na=rtpmap:96 VP8/90000\r\na=inactive\r\n"
    b"m=application 54400 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 198.51.100.7\r\n"
)
HELD = (
    b"v=0\no=- 1 3 IN IP4 192.0.2.1\ns=-\nc=IN IP4 0.0.0.0\nt=0 0\n"
    b"m=audio 6000/2 RTP/AVP 0\na=rtcp:7001 IN IP4 192.0.2.77\nm=image 6010 udptl t38\n"
    b"c=IN IP4 224.2.1.1/127/3\n"
)


def with_body(head: bytes, body: bytes = b"") -> bytes:
    """The head's lines, Content-Length and the body."""
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


INVITE = with_body(
    b"INVITE sip:bob@example.com:5070;user=phone SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK776asdhds;rport\r\n"
    b"Via: SIP/2.0/TCP 198.51.100.1;branch=z9hG4bKsecond\r\n"
    b'From: "Alice \\"<sip:x@y>\\"" <sip:alice@example.com>;tag=1928301774\r\n'
    b"To: Bob <sip:bob@example.com>\r\nCall-ID: a84b4c76e66710@192.0.2.1\r\nCSeq: 314159 INVITE\r\n"
    b"Contact: <sip:alice@192.0.2.1:5060;transport=udp>\r\nMax-Forwards: 70\r\n"
    b"User-Agent: a phone/1.0 (of ours)\r\nX-CID: other@192.0.2.9\r\n"
    b"Session-ID: ab30317f1a784dc48ff824d0d3715d86\r\n"
    b"Content-Type: application/sdp\r\n",
    OFFER,
)
OK = with_body(
    b"SIP/2.0 200 OK\r\nv: SIP/2.0/UDP 192.0.2.1:5060;received=192.0.2.1 ;branch = z9hG4bK776asdhds,"
    b" SIP/2.0/TCP 198.51.100.1\r\nf: sip:alice@example.com;tag=1928301774\r\nt : <sip:bob@example.com>\r\n"
    b" ;tag=a6c85cf\r\ni: a84b4c76e66710@192.0.2.1\r\nCSeq: 314159\r\n INVITE\r\nm: <sip:bob@192.0.2.4>\r\n"
    b"Server: something\r\nc: Application/SDP ; charset=x\r\n",
    WEBRTC,
)
MULTIPART = with_body(
    b"INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKmp\r\n"
    b"From: <sip:alice@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: multi@192.0.2.1\r\n"
    b"CSeq: 2 INVITE\r\nContent-Type: multipart/mixed;boundary=outer\r\n",
    b"preamble\r\n--outer\r\nContent-Type: text/plain\r\n\r\nv=0 is not an SDP here\r\n"
    b"--outer\r\nContent-Type: multipart/alternative;boundary=inner\r\n\r\n"
    b"--inner\r\nContent-Disposition: session\r\ncontent-type: application/sdp\r\n\r\n"
    + OFFER
    + b"--inner--\r\n--outer--\r\n",
)
REGISTER = with_body(
    b"REGISTER sip:example.com SIP/2.0\nVia: SIP/2.0/UDP [2001:db8::1]:5060;branch=z9hG4bKr\n"
    b"From: sip:alice@example.com;tag=9\nTo: sip:alice@example.com\nCall-ID: r@192.0.2.1\nCSeq: 1 REGISTER\n"
    b"Contact: *\nExpires: 0\n"
)
NOTIFY = with_body(
    b"NOTIFY sip:alice@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bKn\r\n"
    b"From: <sip:bob@example.com>;tag=2\r\nTo: <sip:alice@example.com>;tag=3\r\nCall-ID: n@192.0.2.2\r\n"
    b"CSeq: 7 NOTIFY\r\nEvent: refer\r\nSubscription-State: terminated;reason=noresource\r\n"
    b"Reason: Q.850;cause=16\r\n"
    b'Warning: 399 x "y"\r\nRetry-After: 5\r\nReplaces: a;to-tag=b;from-tag=c\r\n'
    b"Diversion: <sip:d@example.com>\r\n"
    b"RAck: 1 2 INVITE\r\nP-Charging-Vector: icid-value=1\r\nContent-Type: message/sipfrag\r\n",
    b"SIP/2.0 200 OK\r\n",
)
MESSAGES = (INVITE, OK, MULTIPART, REGISTER, NOTIFY)
BODIES = (OFFER, WEBRTC, HELD)
