package awsconf

// Hint is an error with a remedy of the caller's own.
type Hint struct {
	err    error
	Remedy string // one sentence in the imperative
}

// WithRemedy is err, with what its reader can do about it.
func WithRemedy(err error, remedy string) error { return &Hint{err, remedy} }

// Error is the cause's text.
func (e *Hint) Error() string { return e.err.Error() }

// Unwrap gives the cause.
func (e *Hint) Unwrap() error { return e.err }

type class struct{ sentinel, err error }

// AsClass is err, which is also the sentinel, but says so in its own words.
func AsClass(sentinel, err error) error { return &class{sentinel, err} }

// Error is the cause's text.
func (e *class) Error() string { return e.err.Error() }

// Unwrap gives the sentinel and the cause.
func (e *class) Unwrap() []error { return []error{e.sentinel, e.err} }
