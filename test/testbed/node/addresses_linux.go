package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"
)

// The index of the loopback interface is 1 in every network.
const loopback = 1

// addresses brings the loopback interface of a new network up, and gives it addresses (IPv4, of one host each).
func addresses(list []string) error {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("set up the node's network: %w", err)
	}
	defer func() { _ = syscall.Close(fd) }()
	// struct ifinfomsg: family, padding, type, index, flags, the flags to be changed
	link := make([]byte, syscall.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(link[4:], loopback)
	binary.NativeEndian.PutUint32(link[8:], syscall.IFF_UP)
	binary.NativeEndian.PutUint32(link[12:], syscall.IFF_UP)
	if err := ask(fd, syscall.RTM_NEWLINK, 0, link); err != nil {
		return fmt.Errorf("bring the node's loopback interface up: %w", err)
	}
	for _, text := range list {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return err
		}
		// struct ifaddrmsg: family, prefix length, flags, scope, index; then two attributes of 4 bytes each
		body := []byte{syscall.AF_INET, 32, 0, syscall.RT_SCOPE_UNIVERSE}
		body = binary.NativeEndian.AppendUint32(body, loopback)
		for _, kind := range []uint16{syscall.IFA_LOCAL, syscall.IFA_ADDRESS} {
			body = binary.NativeEndian.AppendUint16(body, 8)
			body = binary.NativeEndian.AppendUint16(body, kind)
			body = append(body, address.AsSlice()...)
		}
		if err := ask(fd, syscall.RTM_NEWADDR, syscall.NLM_F_CREATE|syscall.NLM_F_EXCL, body); err != nil {
			return fmt.Errorf("give the node the address %s: %w", text, err)
		}
	}
	return nil
}

// ask sends one request to the kernel (rtnetlink(7)) and waits for its answer.
func ask(fd int, kind, flags uint16, body []byte) error {
	message := binary.NativeEndian.AppendUint32(nil, uint32(syscall.SizeofNlMsghdr+len(body)))
	message = binary.NativeEndian.AppendUint16(message, kind)
	message = binary.NativeEndian.AppendUint16(message, flags|syscall.NLM_F_REQUEST|syscall.NLM_F_ACK)
	message = append(message, 1, 0, 0, 0, 0, 0, 0, 0) // sequence number and port
	message = append(message, body...)
	if err := syscall.Sendto(fd, message, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := syscall.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if n < syscall.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(answer[4:]) != syscall.NLMSG_ERROR {
		return fmt.Errorf("an answer of %d bytes that is no acknowledgement", n)
	}
	if code := int32(binary.NativeEndian.Uint32(answer[syscall.SizeofNlMsghdr:])); code != 0 {
		return syscall.Errno(-code)
	}
	return nil
}
