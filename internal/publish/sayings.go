package publish

import (
	"log/slog"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// sayings logs what an operator must know, each thing once in a row.
type sayings struct {
	log  *slog.Logger
	said map[string]string // by topic
}

func (s *sayings) once(topic, text string) (first bool) {
	if s.said[topic] == text {
		return false
	}
	if s.said == nil {
		s.said = map[string]string{}
	}
	s.said[topic] = text
	return true
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// cannot says why nothing is published; nil: it is.
func (s *sayings) cannot(err error) {
	if !s.once("state", textOf(err)) {
		return
	}
	if err != nil {
		s.log.Warn("cannot publish this node's state, what was published stands", "err", err)
	} else {
		s.log.Info("publishing this node's state")
	}
}

func (s *sayings) unwritable(err error) {
	if s.once("form", textOf(err)) && err != nil {
		s.log.Warn("cannot write down what this node or a pod is", "err", err)
	}
}

// wrote says what came of a write. What fails for one pod may for every pod.
func (s *sayings) wrote(out *outcome) {
	where := "this node"
	if out.kind == "pod" {
		where = "this node's pods"
	}
	text := out.result + string(apierrors.ReasonForError(out.err))
	switch out.result {
	case written:
		s.once(out.kind, "")
		if out.kind == "node" {
			s.log.Info("published the node", "bytes", len(out.body))
		} else {
			s.log.Debug("acknowledged a pod", "pod", out.namespace+"/"+out.name, "uid", out.uid)
		}
	case conflict, gone: // the next look tells
	case forbidden:
		if s.once(out.kind, text) {
			s.log.Warn("not allowed to write to "+where+": nothing is published there until the plugin may; apply deploy/plugin-rbac", "name", out.name, "err", out.err)
		}
	default:
		if s.once(out.kind, text) {
			s.log.Warn("cannot write to "+where+", will try again", "name", out.name, "err", out.err)
		}
	}
}
