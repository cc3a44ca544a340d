package runtime

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
)

const (
	maxTerminationMessage = 4096
	maxFallbackLogBytes   = 2048
	maxFallbackLogLines   = 80
)

// terminationMessage is what an exited container left in the file at its
// terminationMessagePath, or, when it failed and the policy says so, the end of its log.
func terminationMessage(c *Container) string {
	message := c.Message
	if c.messagePath != "" {
		for _, m := range c.Mounts {
			if m.ContainerPath == c.messagePath {
				if text := readHead(m.HostPath, maxTerminationMessage); text != "" {
					return text
				}
			}
		}
	}
	if c.messagePolicy == v1.TerminationMessageFallbackToLogsOnError && c.ExitCode != 0 {
		if text := readLogTail(c.LogPath); text != "" {
			return text
		}
	}
	return message
}

func readHead(path string, most int64) string {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return ""
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return ""
	}
	return string(raw)
}

// readLogTail returns the last lines of a container's log without CRI's prefix
// (`time stream tag text`) or Docker's JSON.
func readLogTail(path string) string {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return ""
	}
	defer f.Close()
	// Prefixes take room too: read generously, cut afterwards.
	const window = 16 * maxFallbackLogBytes
	if size, err := f.Seek(0, io.SeekEnd); err != nil || size > window {
		_, err = f.Seek(-window, io.SeekEnd)
		if err != nil {
			return ""
		}
	} else if _, err := f.Seek(0, io.SeekStart); err != nil {
		return ""
	}
	var lines []string
	partial := false
	r := bufio.NewReader(f)
	for {
		raw, err := r.ReadBytes('\n')
		if text, more, ok := logText(raw); ok {
			if partial {
				lines[len(lines)-1] += text
			} else {
				lines = append(lines, text)
			}
			partial = more
		}
		if err != nil {
			break
		}
	}
	if len(lines) > maxFallbackLogLines {
		lines = lines[len(lines)-maxFallbackLogLines:]
	}
	text := strings.Join(lines, "")
	if len(text) > maxFallbackLogBytes {
		text = text[len(text)-maxFallbackLogBytes:]
	}
	return text
}

func logText(line []byte) (text string, partial, ok bool) {
	if bytes.HasPrefix(line, []byte("{")) {
		var entry struct {
			Log string `json:"log"`
		}
		if json.Unmarshal(line, &entry) != nil {
			return "", false, false
		}
		return entry.Log, false, true
	}
	parts := bytes.SplitN(line, []byte(" "), 4)
	if len(parts) < 4 {
		return "", false, false
	}
	text = string(parts[3])
	if partial = string(parts[2]) == "P"; partial {
		text = strings.TrimSuffix(text, "\n")
	}
	return text, partial, true
}
