package repository

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"kedge.dev/kedge/plugins"
)

const (
	passwordBytes = 32
	maxSealed     = 64 << 10
	maxSeals      = 1000
	keySuffix     = ".age"
)

// Keys seal and open the repository's password. The location's key pair is behind them: Seal needs its public half only, Open the
// private one.
type Keys struct {
	Seal func(plain []byte) ([]byte, error)
	Open func(sealed []byte) ([]byte, error)
	// Random gives the bytes of a new password: crypto/rand's Reader outside of tests.
	Random io.Reader
}

// Passwords opens the sealed passwords that the location has, the newest first, and leaves out those that do not open. More than one is there
// after the password was sealed anew, or where somebody put one that is not the repository's. The error wraps ErrNoPassword where none opens.
func Passwords(ctx context.Context, store plugins.ObjectStore, keys Keys) ([]string, error) {
	numbers, err := seals(ctx, store)
	if err != nil {
		return nil, fmt.Errorf("find the volume repository's password: %w", err)
	}
	var found []string
	refused := []error{ErrNoPassword}
	for _, n := range slices.Backward(numbers) {
		sealed, err := readSmall(ctx, store, sealKey(n))
		if err != nil {
			return nil, fmt.Errorf("read the volume repository's password: %w", err)
		}
		plain, err := keys.Open(sealed)
		if err != nil {
			refused = append(refused, fmt.Errorf("open %s: %w", sealKey(n), err))
			continue
		}
		found = append(found, strings.TrimSpace(string(plain)))
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("open the volume repository in %s: %w", store, errors.Join(refused...))
	}
	return found, nil
}

// createPassword makes the location's first password, unless another has; the caller reads back what is there. It refuses where there is a
// repository whose password is gone: a new one would not open it.
func createPassword(ctx context.Context, store plugins.ObjectStore, keys Keys) error {
	numbers, err := seals(ctx, store)
	if err != nil || len(numbers) > 0 {
		return err
	}
	if _, err := find(ctx, store); !errors.Is(err, ErrNoRepository) {
		if err == nil {
			err = fmt.Errorf("%w: %s/ is empty", ErrNoPassword, KeyFolder)
		}
		return err
	}
	secret := make([]byte, passwordBytes)
	if _, err := io.ReadFull(keys.Random, secret); err != nil {
		return fmt.Errorf("read random: %w", err)
	}
	return putSeal(ctx, store, keys, base64.RawURLEncoding.EncodeToString(secret), 1)
}

// Reseal seals the password anew, as the next number: after the location got another key pair. Older ones stay; delete them to take access away.
func Reseal(ctx context.Context, store plugins.ObjectStore, keys Keys, password string) error {
	numbers, err := seals(ctx, store)
	if err != nil {
		return fmt.Errorf("seal the volume repository's password: %w", err)
	}
	next := 1
	if len(numbers) > 0 {
		next = numbers[len(numbers)-1] + 1
	}
	if err := putSeal(ctx, store, keys, password, next); err != nil {
		return fmt.Errorf("seal the volume repository's password: %w", err)
	}
	return nil
}

// putSeal stores a sealed password under a number. That another has it already is no error: it is read back.
func putSeal(ctx context.Context, store plugins.ObjectStore, keys Keys, password string, n int) error {
	sealed, err := keys.Seal([]byte(password + "\n"))
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	_, err = store.Put(ctx, sealKey(n), bytes.NewReader(sealed), plugins.PutOptions{IfNoneMatch: true})
	if errors.Is(err, plugins.ErrExists) {
		return nil
	}
	return err
}

func sealKey(n int) string { return KeyFolder + "/" + strconv.Itoa(n) + keySuffix }

// seals lists the numbers of the sealed passwords, rising.
func seals(ctx context.Context, store plugins.ObjectStore) ([]int, error) {
	var numbers []int
	err := store.List(ctx, KeyFolder+"/", func(info plugins.ObjectInfo) error {
		digits, ok := strings.CutSuffix(strings.TrimPrefix(info.Key, KeyFolder+"/"), keySuffix)
		n, err := strconv.Atoi(digits)
		if !ok || err != nil || n < 1 || strconv.Itoa(n) != digits {
			return nil //nolint:nilerr // another's object
		}
		if len(numbers) == maxSeals {
			return fmt.Errorf("more than %d objects below %s/", maxSeals, KeyFolder)
		}
		numbers = append(numbers, n)
		return nil
	})
	slices.Sort(numbers)
	return numbers, err
}

func readSmall(ctx context.Context, store plugins.ObjectStore, key string) ([]byte, error) {
	r, err := store.Get(ctx, key, 0, maxSealed+1)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	if len(data) > maxSealed {
		return nil, fmt.Errorf("%s has more than %d bytes", key, maxSealed)
	}
	return data, nil
}
