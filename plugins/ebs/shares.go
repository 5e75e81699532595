package ebs

import "sync"

// shares counts who needs a snapshot shared with an account: of two copies to one account the first to end must not take it from the other. The zero
// value is ready.
type shares struct {
	mu   sync.Mutex
	open map[[2]string]*share // by snapshot and account
}

type share struct {
	key   [2]string
	users int // guarded by shares.mu

	calls sync.Mutex // held while the sharing is changed
}

// begin counts one who is about to share.
func (s *shares) begin(snapshot, account string) *share {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := [2]string{snapshot, account}
	one := s.open[key]
	if one == nil {
		if s.open == nil {
			s.open = map[[2]string]*share{}
		}
		one = &share{key: key}
		s.open[key] = one
	}
	one.users++
	return one
}

// do changes the sharing while nobody else does.
func (s *share) do(change func() error) error {
	s.calls.Lock()
	defer s.calls.Unlock()
	return change()
}

// end counts one less. The last has the sharing removed before it is counted out: who begins meanwhile shares again after that.
func (s *shares) end(one *share, remove func()) {
	one.calls.Lock()
	defer one.calls.Unlock()
	if s.last(one) {
		remove()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if one.users--; one.users == 0 {
		delete(s.open, one.key)
	}
}

func (s *shares) last(one *share) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return one.users == 1
}
