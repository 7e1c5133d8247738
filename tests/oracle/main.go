// Reads scheduler.yaml as a Dragonfly scheduler does: with viper, mapstructure and yaml.v3, of the releases that v2.1.34 to
// v2.5.1 are built with. `cargo test oracle` compares what signoff reads with it.
//
// Each line on standard input is one file, as a JSON string; each line on standard output is what was read of it.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"reflect"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/mitchellh/mapstructure"
	"github.com/spf13/viper"
	"gopkg.in/yaml.v3"
)

type files struct {
	CACert string `mapstructure:"caCert"`
	Cert   string `mapstructure:"cert"`
	Key    string `mapstructure:"key"`
}

// The fields that signoff reads, with the scheduler's names and types.
type config struct {
	Server struct {
		AdvertiseIP   net.IP `mapstructure:"advertiseIP"`
		AdvertisePort int    `mapstructure:"advertisePort"`
		ListenIP      net.IP `mapstructure:"listenIP"`
		Port          int    `mapstructure:"port"`
		Host          string `mapstructure:"host"`
		TLS           *files `mapstructure:"tls"`
	} `mapstructure:"server"`
	Manager struct {
		Addr               *string `mapstructure:"addr"`
		TLS                *files  `mapstructure:"tls"`
		SchedulerClusterID uint    `mapstructure:"schedulerClusterID"`
		KeepAlive          struct {
			Interval time.Duration `mapstructure:"interval"`
		} `mapstructure:"keepAlive"`
	} `mapstructure:"manager"`
	Metrics struct {
		Enable bool   `mapstructure:"enable"`
		Addr   string `mapstructure:"addr"`
	} `mapstructure:"metrics"`
	Network struct {
		EnableIPv6 bool `mapstructure:"enableIPv6"`
	} `mapstructure:"network"`
	// Up to v2.1.60. The scheduler's caCert is the certificate itself or a file with it; which, is not looked at here.
	Security struct {
		AutoIssueCert bool   `mapstructure:"autoIssueCert"`
		CACert        string `mapstructure:"caCert"`
		TLSPolicy     string `mapstructure:"tlsPolicy"`
	} `mapstructure:"security"`
}

// What the scheduler puts in where nothing is said.
func defaults() *config {
	c := &config{}
	c.Server.Host = "the.fqdn"
	c.Server.Port, c.Server.AdvertisePort = 8002, 8002
	c.Manager.SchedulerClusterID = 1
	c.Manager.KeepAlive.Interval = 5 * time.Second
	c.Metrics.Addr = ":8000"
	c.Security.TLSPolicy = "prefer"
	return c
}

type answer struct {
	// It is no document that a scheduler reads.
	Unreadable string `json:"unreadable,omitempty"`
	// The fields, or sections, that a scheduler refuses to start with.
	Bad           []string `json:"bad"`
	AdvertiseIP   string   `json:"advertise_ip"`
	AdvertisePort int      `json:"advertise_port"`
	ListenIP      string   `json:"listen_ip"`
	Port          int      `json:"port"`
	Host          string   `json:"host"`
	ServerTLS     *files   `json:"server_tls"`
	Addr          *string  `json:"addr"`
	ManagerTLS    *files   `json:"manager_tls"`
	ClusterID     uint64   `json:"cluster_id"`
	Interval      int64    `json:"interval"`
	Metrics       bool     `json:"metrics"`
	MetricsAddr   string   `json:"metrics_addr"`
	EnableIPv6    bool     `json:"enable_ipv6"`
	AutoIssueCert bool     `json:"auto_issue_cert"`
	CACert        string   `json:"ca_cert"`
	TLSPolicy     string   `json:"tls_policy"`
}

var quoted = regexp.MustCompile(`'([^']*)'`)

func read(text string) (said answer) {
	v := viper.New()
	v.SetConfigType("yaml")
	if err := v.ReadConfig(strings.NewReader(text)); err != nil {
		return answer{Unreadable: err.Error()}
	}
	c := defaults()
	bad := map[string]bool{}
	if err := v.Unmarshal(c, hooked); err != nil {
		of, is := err.(*mapstructure.Error)
		if !is {
			return answer{Unreadable: err.Error()}
		}
		for _, one := range of.Errors {
			if name := quoted.FindStringSubmatch(one); name != nil {
				bad[name[1]] = true
			}
		}
	}
	// As the scheduler does next: it makes some fields good, and refuses others.
	if c.Server.AdvertisePort == 0 {
		c.Server.AdvertisePort = c.Server.Port
	}
	for name, wrong := range map[string]bool{
		"server.host":                c.Server.Host == "",
		"server.advertiseIP":         !isAddress(c.Server.AdvertiseIP),
		"server.listenIP":            !isAddress(c.Server.ListenIP),
		"server.port":                c.Server.Port < 1 || c.Server.Port > 65535,
		"server.advertisePort":       c.Server.AdvertisePort < 1 || c.Server.AdvertisePort > 65535,
		"manager.addr":               c.Manager.Addr != nil && *c.Manager.Addr == "",
		"manager.schedulerClusterID": c.Manager.SchedulerClusterID == 0,
		"manager.keepAlive.interval": c.Manager.KeepAlive.Interval <= 0,
	} {
		if wrong {
			bad[name] = true
		}
	}
	said = answer{
		Bad:           []string{},
		AdvertisePort: c.Server.AdvertisePort,
		Port:          c.Server.Port,
		Host:          c.Server.Host,
		ServerTLS:     c.Server.TLS,
		Addr:          c.Manager.Addr,
		ManagerTLS:    c.Manager.TLS,
		ClusterID:     uint64(c.Manager.SchedulerClusterID),
		Interval:      int64(c.Manager.KeepAlive.Interval),
		Metrics:       c.Metrics.Enable,
		MetricsAddr:   c.Metrics.Addr,
		EnableIPv6:    c.Network.EnableIPv6,
		AutoIssueCert: c.Security.AutoIssueCert,
		CACert:        c.Security.CACert,
		TLSPolicy:     c.Security.TLSPolicy,
	}
	if c.Server.AdvertiseIP != nil {
		said.AdvertiseIP = c.Server.AdvertiseIP.String()
	}
	if c.Server.ListenIP != nil {
		said.ListenIP = c.Server.ListenIP.String()
	}
	for name := range bad {
		said.Bad = append(said.Bad, name)
	}
	sort.Strings(said.Bad)
	return said
}

// An empty list becomes an address without a byte.
func isAddress(ip net.IP) bool {
	return ip == nil || ip.To16() != nil
}

// An address is read from the text that YAML makes of its value; everything else as viper does it.
func hooked(decoder *mapstructure.DecoderConfig) {
	ip := func(_ reflect.Type, to reflect.Type, value interface{}) (interface{}, error) {
		if to != reflect.TypeOf(net.IP{}) {
			return value, nil
		}
		text, err := yaml.Marshal(value)
		if err != nil {
			return nil, err
		}
		address := new(net.IP)
		return address, yaml.Unmarshal(text, address)
	}
	decoder.DecodeHook = mapstructure.ComposeDecodeHookFunc(ip, decoder.DecodeHook)
}

func main() {
	lines := bufio.NewReader(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var text string
		if err := json.Unmarshal(line, &text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(64)
		}
		if err := out.Encode(read(text)); err != nil {
			os.Exit(70)
		}
	}
}
