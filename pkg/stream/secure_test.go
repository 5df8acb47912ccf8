package stream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
)

// selfSigned makes a certificate for 127.0.0.1 and returns it with the PEM file of its authority.
func selfSigned(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "weft test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// The suite over TLS with each log-in; handing over partitions is the same there, and takes its time.
func TestConformanceSecured(t *testing.T) {
	cert, ca := selfSigned(t)
	pem, err := os.ReadFile(ca) //nolint:gosec // of this test
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(pem))
	password := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(password, []byte("secret\n"), 0o600))
	for mechanism, m := range map[string]struct {
		method string
		login  sasl.Mechanism
	}{
		"plain":         {"PLAIN", plain.Auth{User: "weft", Pass: "secret"}.AsMechanism()},
		"scram-sha-256": {"SCRAM-SHA-256", scram.Auth{User: "weft", Pass: "secret"}.AsSha256Mechanism()},
		"scram-sha-512": {"SCRAM-SHA-512", scram.Auth{User: "weft", Pass: "secret"}.AsSha512Mechanism()},
	} {
		t.Run(mechanism, func(t *testing.T) {
			t.Parallel() // much of the suite waits
			cluster := fake(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}),
				kfake.EnableSASL(), kfake.Superuser(m.method, "weft", "secret"))
			brokers := cluster.ListenAddrs()
			a := secured{
				tls:  config.TLS{Enabled: true, CAFile: ca},
				sasl: config.SASL{Mechanism: mechanism, Username: "weft", PasswordFile: password},
				kgo:  []kgo.Opt{kgo.SASL(m.login), kgo.DialTLSConfig(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12})},
			}
			access.Store(brokers[0], a)
			defer access.Delete(brokers[0])
			records(t, brokers)
			t.Run("group", func(t *testing.T) { groupConformance(t, brokers) })

			a.sasl.Username = "nobody"
			wrong, err := New(config.Kafka{Brokers: brokers, TLS: a.tls, SASL: a.sasl}, zap.NewNop())
			require.NoError(t, err)
			defer wrong.Close()
			ctx, cancel := context.WithTimeout(testContext(t), 5*time.Second)
			defer cancel()
			require.Error(t, wrong.Ping(ctx))
		})
	}
}

func TestNewRefuses(t *testing.T) {
	brokers := []string{"127.0.0.1:1"}
	for name, tt := range map[string]struct {
		cfg  config.Kafka
		want string
	}{
		"no broker": {config.Kafka{}, "kafka.brokers"},
		"no ca":     {config.Kafka{Brokers: brokers, TLS: config.TLS{Enabled: true, CAFile: "/nowhere"}}, "kafka.tls: read ca_file"},
		"no key":    {config.Kafka{Brokers: brokers, TLS: config.TLS{Enabled: true, CertFile: "/nowhere"}}, "kafka.tls: read cert_file"},
		"log-in":    {config.Kafka{Brokers: brokers, SASL: config.SASL{Mechanism: "kerberos"}}, `kafka.sasl: mechanism "kerberos"`},
		"password":  {config.Kafka{Brokers: brokers, SASL: config.SASL{Mechanism: "plain", PasswordFile: "/nowhere"}}, "kafka.sasl: read password_file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(tt.cfg, zap.NewNop())
			require.ErrorContains(t, err, tt.want)
		})
	}
}
