package extender

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	extenderv1 "k8s.io/kube-scheduler/extender/v1"
)

// maxBody bounds what one call may send: some 150,000 node names, or a pod of
// the largest size that etcd takes with room for every node of a cluster.
const maxBody = 32 << 20

// fault is a call that is not what it should be.
type fault struct {
	code int
	err  error
}

func (f *fault) Error() string { return f.err.Error() }

func faultf(code int, format string, args ...any) *fault {
	return &fault{code, fmt.Errorf(format, args...)}
}

// serve answers one call, and returns the status code.
func serve[In, Out any](w http.ResponseWriter, r *http.Request, answer func(context.Context, *In) (Out, error)) int {
	in := new(In)
	if err := read(w, r, in); err != nil {
		return writeFault(w, err)
	}
	out, err := answer(r.Context(), in)
	if err != nil {
		return writeFault(w, err)
	}
	return write(w, out)
}

func read(w http.ResponseWriter, r *http.Request, in any) error {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return faultf(http.StatusMethodNotAllowed, "method %s: want POST", r.Method)
	}
	if t := r.Header.Get("Content-Type"); t != "" {
		if media, _, err := mime.ParseMediaType(t); err != nil || !strings.HasSuffix(media, "json") {
			return faultf(http.StatusUnsupportedMediaType, "content type %.80q: want application/json", t)
		}
	}
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	if err := decode(body, in); err != nil {
		return faultf(http.StatusBadRequest, "decode the call: %w", err)
	}
	return nil
}

func decode(body []byte, in any) error {
	if args, ok := in.(*extenderv1.ExtenderArgs); ok {
		return decodeArgs(body, args)
	}
	return json.Unmarshal(body, in)
}

func encode(out any) ([]byte, error) {
	if f, ok := out.(*filtered); ok {
		return f.encode()
	}
	return json.Marshal(out)
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	limited := http.MaxBytesReader(w, r.Body, maxBody)
	// kube-scheduler tells the length; one allocation instead of many. What is
	// told is not trusted beyond the bound.
	buf := make([]byte, 0, max(512, min(r.ContentLength, maxBody)+1))
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := limited.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		var tooLarge *http.MaxBytesError
		switch {
		case errors.Is(err, io.EOF):
			return buf, nil
		case errors.As(err, &tooLarge):
			return nil, faultf(http.StatusRequestEntityTooLarge, "body of more than %d bytes", tooLarge.Limit)
		case err != nil:
			return nil, faultf(http.StatusBadRequest, "read the call: %w", err)
		}
	}
}

// write sends an answer in one piece. Without a Content-Length an answer of
// more than 2 kB goes out in chunks, and as kube-scheduler does not read to
// the last one, its connection cannot be used again.
func write(w http.ResponseWriter, out any) int {
	body, err := encode(out)
	if err != nil {
		return writeFault(w, fmt.Errorf("encode the answer: %w", err))
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the caller has gone: nobody is left to be told
	return http.StatusOK
}

func writeFault(w http.ResponseWriter, err error) int {
	code := http.StatusInternalServerError
	var f *fault
	if errors.As(err, &f) {
		code = f.code
	}
	http.Error(w, err.Error(), code)
	return code
}
