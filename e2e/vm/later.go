package vm

func (s *setting) carrier() []check { return nil }
func (s *setting) drivers() []check { return nil }
func (s *setting) kills() []check { return nil }
func (s *setting) reboot() []check { return nil }
